import type { FastifyRequest, RouteHandlerMethod } from 'fastify'
import { z } from 'zod'
import { registerClient } from '../clients/register.ts'
import type { Context } from '../context.ts'
import { networkOf } from '../operations/network.ts'
import { effectiveClientMetadata } from '../protocol/client-metadata.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { equalSecrets } from '../tokens/secret.ts'

/** `null` and `""` count as absent; what Postgres can't keep is refused. */
const text = z
  .string()
  .max(2048)
  .refine((value) => !value.includes('\0') && value.isWellFormed())
  .nullish()
  .transform((value) => value ?? undefined)
const texts = z
  .array(
    z
      .string()
      .max(2048)
      .refine((value) => !value.includes('\0') && value.isWellFormed()),
  )
  .max(50)
  .nullish()
  .transform((value) => value ?? undefined)

/** A member that only describes: an unusable value is left out, and the client registered all the same. */
const description = text.catch(undefined)

/** The members that mean something here (RFC 7591 §2); others are left out. */
const requestSchema = z.object({
  redirect_uris: texts,
  token_endpoint_auth_method: text,
  grant_types: texts,
  response_types: texts,
  scope: text,
  client_name: description,
  client_uri: description,
  logo_uri: description,
  tos_uri: description,
  policy_uri: description,
  contacts: texts.catch(undefined),
  software_id: description,
  software_version: description,
  application_type: description,
})

/** Client registration endpoint (RFC 7591 §3). */
export function register(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const registration = admit(context, request)
    const requested = requestSchema.safeParse(request.body)
    if (!requested.success) {
      const member = requested.error.issues[0]?.path[0]
      const code = member === 'redirect_uris' ? 'invalid_redirect_uri' : 'invalid_client_metadata'
      throw new OAuthError(
        code,
        typeof member === 'string' ? `${member} has an unusable value` : 'the body is not a JSON object',
      )
    }
    const metadata = effectiveClientMetadata(requested.data, context.config.redirectSchemes)
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
