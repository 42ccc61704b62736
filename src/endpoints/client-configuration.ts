import type { FastifyRequest, RouteHandlerMethod } from 'fastify'
import * as z from 'zod'
import { demandRegistration, replaceRegistration } from '../clients/client-configuration.ts'
import { readClientMetadata } from '../clients/read-metadata.ts'
import { clientInformation } from '../clients/register.ts'
import type { Context } from '../context.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { readParameters, required } from '../protocol/parameters.ts'
import { removeClient } from '../store/client.ts'
import type { ClientRow } from '../store/database.ts'
import { equalHashes, hashSecret } from '../tokens/secret.ts'

/** Client configuration endpoint (RFC 7592 §2.1): what is registered. A secret is not repeated: only its hash is stored. */
export function readClient(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const { client, token } = await authenticate(context, request)
    return reply
      .header('cache-control', 'no-store')
      .send(clientInformation(context, client, { registrationToken: token }))
  }
}

/** Client configuration endpoint (RFC 7592 §2.2): replaces what is registered. */
export function updateClient(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const { client, token } = await authenticate(context, request)
    demandOwnCredentials(client, request.body)
    const metadata = readClientMetadata(context, request.body)
    const replaced = await replaceRegistration(context, client, metadata, token)
    context.log.info({ event: 'client_updated', client_id: client.id }, 'client updated its registration')
    return reply.header('cache-control', 'no-store').send(replaced)
  }
}

/** Client configuration endpoint (RFC 7592 §2.3): removes the client with everything that was granted to it. */
export function deleteClient(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const { client } = await authenticate(context, request)
    await removeClient(context.db, client.id)
    context.log.info({ event: 'client_removed', client_id: client.id }, 'client removed its registration')
    return reply.code(204).header('cache-control', 'no-store').send()
  }
}

/** The registration access token is a bearer token (RFC 7592 §2), and belongs to the client in the URL alone. */
async function authenticate(context: Context, request: FastifyRequest): Promise<{ client: ClientRow; token: string }> {
  const clientId = required(readParameters(request.query), 'client_id')
  const token = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? ''
  return { client: await demandRegistration(context, clientId, token), token }
}

const credentialsSchema = z.object({ client_id: z.string(), client_secret: z.string().optional() })

/** A request names the client that it is about, and its secret only as it is (RFC 7592 §2.2). */
function demandOwnCredentials(client: ClientRow, body: unknown): void {
  const sent = credentialsSchema.safeParse(body)
  const named = sent.success && sent.data.client_id === client.id
  const secret = sent.success ? sent.data.client_secret : undefined
  if (!named) throw new OAuthError('invalid_client_metadata', 'client_id is not the one of this registration')
  if (secret !== undefined && !equalHashes(client.secret_hash ?? hashSecret(''), hashSecret(secret))) {
    throw new OAuthError('invalid_client_metadata', 'client_secret is not the current one')
  }
}
