import type { RouteHandlerMethod } from 'fastify'
import type { Context } from '../context.ts'
import { readClientCredentials } from '../protocol/client-authentication.ts'
import { introspectionResponse, SIGNED_INTROSPECTION, wantsSignedIntrospection } from '../protocol/introspection.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { readParameters, required } from '../protocol/parameters.ts'
import { lookUpAccessTokens } from '../store/access-token.ts'
import { accessTokenHash, mayBePresented } from '../tokens/access-token.ts'
import { equalHashes, hashSecret } from '../tokens/secret.ts'

const RESOURCE_SERVER_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** Introspection endpoint (RFC 7662 §2): one look-up finds the resource server and the token that it asks about. */
export function introspect(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const parameters = readParameters(request.body)
    const { resourceId, secretHash } = readResourceServer(request.headers.authorization, parameters)
    const presented = required(parameters, 'token')
    const tokenHash = await accessTokenHash(context, presented)
    const [found] = await lookUpAccessTokens(context.db, [{ resourceId, tokenHash }])
    if (found === undefined) throw refused('resource_server_unknown')
    if (!equalHashes(found.secretHash, secretHash)) throw refused('resource_server_secret_wrong')
    const { resourceUri, nowSeconds } = found
    const token = mayBePresented(presented, found.tokenFormat) ? found.token : undefined
    const response = introspectionResponse(token, context.config.issuer, resourceUri)
    reply.header('cache-control', 'no-store')
    if (!wantsSignedIntrospection(request.headers.accept)) return reply.send(response)
    // RFC 9701 §5
    return reply.type(SIGNED_INTROSPECTION).send(await context.keys.signIntrospection(resourceId, response, nowSeconds))
  }
}

/** The credentials that `postern resource add` printed. They hold no percent or plus sign, so decoding is right. */
function readResourceServer(authorization: string | undefined, parameters: ReadonlyMap<string, string>) {
  const { clientId, clientSecret } = readClientCredentials(authorization, parameters).readings.at(-1) ?? {}
  if (clientId === undefined || !RESOURCE_SERVER_ID.test(clientId)) throw refused('resource_server_unknown')
  if (clientSecret === undefined) throw refused('resource_server_secret_missing')
  return { resourceId: clientId, secretHash: hashSecret(clientSecret) }
}

function refused(reason: string): OAuthError {
  return new OAuthError('invalid_client', 'authentication of the resource server failed', reason)
}
