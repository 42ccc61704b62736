import type { Context } from '../context.ts'
import type { ClientMetadata } from '../protocol/client-metadata.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { findClient, replaceClientMetadata } from '../store/client.ts'
import type { ClientRow } from '../store/database.ts'
import { credentialHash, equalHashes, hashSecret, issueCredential } from '../tokens/secret.ts'
import { type ClientInformation, clientInformation, storedMetadata, usesSecret } from './register.ts'

/**
 * Finds the client whose registration a token may manage (RFC 7592 §2): its own, and no other.
 *
 * @throws {OAuthError} `invalid_token`, also for a client that doesn't exist; `access_denied` (403) for one that is
 *   disabled, which could else remove the row that says so (RFC 7592 §2.1, §2.3)
 */
export async function demandRegistration(context: Context, clientId: string, token: string): Promise<ClientRow> {
  const hash = credentialHash('registrationToken', token)
  const client = hash === undefined ? undefined : await findClient(context.db, clientId)
  const right = client?.registration_token_hash ?? undefined
  if (hash === undefined || client === undefined || right === undefined || !equalHashes(right, hash)) {
    throw new OAuthError(
      'invalid_token',
      'the registration access token is not valid',
      'registration_access_token_wrong',
    )
  }
  if (client.disabled_at !== null) {
    throw new OAuthError('access_denied', 'this client is disabled', 'client_disabled', { status: 403 })
  }
  return client
}

/**
 * Replaces the metadata of a client (RFC 7592 §2.2): what the request leaves out goes back to its default. A
 * client that begins to use a secret gets one; what was granted to it stays.
 */
export async function replaceRegistration(
  context: Context,
  client: ClientRow,
  metadata: ClientMetadata,
  token: string,
): Promise<ClientInformation> {
  const secret = issueCredential('clientSecret')
  const secretHash = hashSecret(secret)
  const stored = storedMetadata(metadata, usesSecret(metadata) ? secretHash : null)
  const replaced = await replaceClientMetadata(context.db, client.id, stored)
  if (replaced === undefined) throw new OAuthError('invalid_token', 'the client has been removed', 'client_unknown')
  const isNew = replaced.secret_hash !== null && equalHashes(replaced.secret_hash, secretHash)
  return clientInformation(context, replaced, { secret: isNew ? secret : undefined, registrationToken: token })
}
