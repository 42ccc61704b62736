import type { FastifyInstance, RouteHandlerMethod } from 'fastify'

const ALLOW_ORIGIN = {
  'access-control-allow-origin': '*',
  'access-control-expose-headers': 'www-authenticate, retry-after, dpop-nonce',
}

const PREFLIGHT = {
  ...ALLOW_ORIGIN,
  'access-control-allow-methods': 'GET, POST, PUT, DELETE, OPTIONS',
  'access-control-allow-headers': 'authorization, content-type, mcp-protocol-version, dpop',
  'access-control-max-age': '86400',
}

/**
 * Lets pages of any origin read what these endpoints answer: clients that are pages, such as MCP Inspector,
 * call them. Without credentials, so no cookie is ever sent along.
 */
export function allowCrossOrigin(server: FastifyInstance): void {
  server.addHook('onRequest', (_request, reply, done) => {
    reply.headers(ALLOW_ORIGIN)
    done()
  })
}

/** Answers the question that a browser asks before a cross-origin request (Fetch §4.8). */
export const preflight: RouteHandlerMethod = async (_request, reply) => reply.code(204).headers(PREFLIGHT).send()
