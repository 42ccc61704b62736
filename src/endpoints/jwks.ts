import type { RouteHandlerMethod } from 'fastify'
import type { Context } from '../context.ts'
import { JWKS_CACHE_SECONDS } from '../protocol/signing-key.ts'

/** JWK set (RFC 7517 §5): the public keys with which resource servers verify what is signed here. */
export function jwks(context: Context): RouteHandlerMethod {
  return async (_request, reply) => {
    const { jwks } = await context.keys.published()
    return reply.type('application/json').header('cache-control', `public, max-age=${JWKS_CACHE_SECONDS}`).send(jwks)
  }
}
