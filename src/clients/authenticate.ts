import type { Context } from '../context.ts'
import { type PresentedCredentials, readClientCredentials } from '../protocol/client-authentication.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import type { Parameters } from '../protocol/parameters.ts'
import type { ClientRow } from '../store/database.ts'
import { Recall } from '../store/recall.ts'
import { equalHashes, hashSecret } from '../tokens/secret.ts'
import { judgeAssertion } from './assertion.ts'
import { authenticationMethods } from './client-policy.ts'
import { type Finding, findClient } from './find.ts'

/**
 * Finds out which client sends a request, and that it is the one (RFC 6749 §2.3, §3.2.1).
 *
 * A client with a secret may send it in the header or the body, whichever it registered for: many connectors
 * register one method and use the other. A public client sends its identifier alone. One with keys sends an
 * assertion (RFC 7523 §2.2); its metadata document may leave it the choice.
 *
 * @param finding how clients with a metadata document are looked for
 * @throws {OAuthError} `invalid_client` when it is unknown, disabled or not proven, `temporarily_unavailable` when
 *   that can't be told, since its keys or its document can't be fetched
 */
export async function authenticateClient(
  context: Context,
  authorization: string | undefined,
  parameters: Parameters,
  finding: Pick<Finding, 'network' | 'asItWas'>,
): Promise<ClientRow> {
  const presented = readClientCredentials(authorization, parameters)
  let reason = 'client_unknown'
  for (const { clientId, clientSecret } of presented.readings) {
    const client = await findClient(context, clientId, finding)
    if (client === undefined) continue
    const problem =
      client.disabled_at === null
        ? await problemWith(context, client, presented, clientSecret, finding.network)
        : 'client_disabled'
    if (problem === undefined) return client
    reason = problem
  }
  throw new OAuthError('invalid_client', 'client authentication failed', reason)
}

const recalledClients = new Recall<ClientRow>()

/** Keeps a client to whom something was issued, for `recallClient`. */
export function keepClient({ db }: Context, client: ClientRow): void {
  recalledClients.keep(db, client.id, client)
}

/**
 * The client that sends a request, if that can be told from a row which an earlier request has read; for what takes
 * effect only where the row still has that version. Assertions count once, so they are left to `authenticateClient`.
 *
 * @throws {OAuthError} as `authenticateClient` does when no credentials can be read
 */
export function recallClient(
  { db }: Context,
  authorization: string | undefined,
  parameters: Parameters,
): ClientRow | undefined {
  const presented = readClientCredentials(authorization, parameters)
  if (presented.assertion !== undefined) return undefined
  for (const { clientId, clientSecret } of presented.readings) {
    const client = recalledClients.get(db, clientId)
    if (client !== undefined && secretProblem(client, presented, clientSecret) === undefined) return client
  }
  return undefined
}

/** Why the client is not proven, for the log. */
async function problemWith(
  context: Context,
  client: ClientRow,
  presented: PresentedCredentials,
  clientSecret: string | undefined,
  network: string,
): Promise<string | undefined> {
  const { assertion } = presented
  if (assertion === undefined) return secretProblem(client, presented, clientSecret)
  if (!authenticationMethods(client).includes('private_key_jwt')) return 'client_assertion_not_registered'
  return judgeAssertion(context, client, assertion, network)
}

/** Why the client is not proven by its secret, or by having none. */
function secretProblem(
  client: ClientRow,
  { method }: PresentedCredentials,
  clientSecret: string | undefined,
): string | undefined {
  if (client.secret_hash !== null) {
    if (clientSecret === undefined) return 'client_secret_missing'
    return equalHashes(client.secret_hash, hashSecret(clientSecret)) ? undefined : 'client_secret_wrong'
  }
  if (!authenticationMethods(client).includes('none')) return 'client_assertion_missing'
  // Basic with an empty password is how some public clients send their identifier
  return method === 'none' || clientSecret === '' ? undefined : 'client_secret_wrong'
}
