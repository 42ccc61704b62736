import type { RouteHandlerMethod } from 'fastify'
import { demandResourceServer, readResourceServer } from '../clients/resource-server.ts'
import type { Context } from '../context.ts'
import { introspectionResponse, SIGNED_INTROSPECTION, wantsSignedIntrospection } from '../protocol/introspection.ts'
import { readParameters, required } from '../protocol/parameters.ts'
import { lookUpAccessToken } from '../store/access-token.ts'
import { accessTokenHash, mayBePresented } from '../tokens/access-token.ts'

/** Introspection endpoint (RFC 7662 §2): one look-up finds the resource server and the token that it asks about. */
export function introspect(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const parameters = readParameters(request.body)
    const resourceServer = readResourceServer(request.headers.authorization, parameters)
    const { resourceId } = resourceServer
    const presented = required(parameters, 'token')
    const tokenHash = await accessTokenHash(context, presented)
    const found = await lookUpAccessToken(context.db, { resourceId, tokenHash })
    const { resourceUri, nowSeconds, tokenFormat, token } = demandResourceServer(resourceServer, found)
    const holding = mayBePresented(presented, tokenFormat) ? token : undefined
    const response = introspectionResponse(holding, context.config.issuer, resourceUri)
    reply.header('cache-control', 'no-store')
    if (!wantsSignedIntrospection(request.headers.accept)) return reply.send(response)
    // RFC 9701 §5
    return reply.type(SIGNED_INTROSPECTION).send(await context.keys.signIntrospection(resourceId, response, nowSeconds))
  }
}
