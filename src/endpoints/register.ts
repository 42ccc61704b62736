import type { FastifyRequest, RouteHandlerMethod } from 'fastify'
import { readClientMetadata } from '../clients/read-metadata.ts'
import { registerClient } from '../clients/register.ts'
import type { Context } from '../context.ts'
import { networkOf } from '../operations/network.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { equalSecrets } from '../tokens/secret.ts'

/** Client registration endpoint (RFC 7591 §3). */
export function register(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const registration = admit(context, request)
    const metadata = readClientMetadata(context, request.body)
    const client = await registerClient(context, metadata, { registration, network: networkOf(request.ip, 48) })
    const facts = {
      client_id: client.client_id,
      client_name: client.client_name,
      method: client.token_endpoint_auth_method,
    }
    context.log.info({ event: 'client_registered', ...facts }, 'client registered')
    return reply.code(201).header('cache-control', 'no-store').send(client)
  }
}

/** Whether the request may register at all (RFC 7591 §3: the initial access token is a bearer token). */
function admit({ config }: Context, request: FastifyRequest): 'open' | 'token' {
  if (config.registration === 'open') return 'open'
  const presented = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1]
  if (presented === undefined || !equalSecrets(presented, config.registrationToken ?? '')) {
    throw new OAuthError('invalid_token', 'registration needs an initial access token', 'registration_token_wrong')
  }
  return 'token'
}
