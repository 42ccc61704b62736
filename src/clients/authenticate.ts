import type { Context } from '../context.ts'
import type { ClientAuthenticationMethod } from '../protocol/client-authentication.ts'
import { readClientCredentials } from '../protocol/client-authentication.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import type { Parameters } from '../protocol/parameters.ts'
import { findClient } from '../store/client.ts'
import type { ClientRow } from '../store/database.ts'
import { equalHashes, hashSecret } from '../tokens/secret.ts'

/**
 * Finds out which client sends a request, and that it is the one (RFC 6749 §2.3, §3.2.1).
 *
 * A client with a secret may send it in the header or the body, whichever it registered for: many connectors
 * register one method and use the other. A public client sends its identifier alone.
 *
 * @throws {OAuthError} `invalid_client` when it is unknown, disabled or not proven
 */
export async function authenticateClient(
  context: Context,
  authorization: string | undefined,
  parameters: Parameters,
): Promise<ClientRow> {
  const { method, readings } = readClientCredentials(authorization, parameters)
  let reason = 'client_unknown'
  for (const { clientId, clientSecret } of readings) {
    const client = await findClient(context.db, clientId)
    if (client === undefined) continue
    if (client.disabled_at !== null) reason = 'client_disabled'
    else if (proves(client, method, clientSecret)) return client
    else
      reason =
        client.secret_hash !== null && clientSecret === undefined ? 'client_secret_missing' : 'client_secret_wrong'
  }
  throw new OAuthError('invalid_client', 'client authentication failed', reason)
}

function proves(client: ClientRow, method: ClientAuthenticationMethod, clientSecret: string | undefined): boolean {
  if (client.secret_hash === null) {
    return method === 'none' || clientSecret === '' // Basic with an empty password is how some public clients send their id
  }
  return clientSecret !== undefined && equalHashes(client.secret_hash, hashSecret(clientSecret))
}
