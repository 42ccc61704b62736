import type { RouteHandlerMethod } from 'fastify'
import { authenticateClient } from '../clients/authenticate.ts'
import type { Context } from '../context.ts'
import { grantFor } from '../grants/index.ts'
import { readParameters, required } from '../protocol/parameters.ts'

/** Token endpoint (RFC 6749 §3.2). */
export function token(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const parameters = readParameters(request.body)
    const client = await authenticateClient(context, request.headers.authorization, parameters)
    const grant = grantFor(required(parameters, 'grant_type'), client)
    const tokens = await grant(context, client, parameters)
    return reply.header('cache-control', 'no-store').send(tokens) // RFC 6749 §5.1
  }
}
