import type { Context } from '../context.ts'
import { clientIdUrlProblem, isClientIdUrl, isHostAllowed } from '../protocol/metadata-document.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { findClient as findStoredClient } from '../store/client.ts'
import type { ClientRow } from '../store/database.ts'
import { findDocumentState } from '../store/metadata-document.ts'
import { fetchDocument } from './metadata-document.ts'
import { isOwnLimit } from './network-limit.ts'

/** How a client is looked for. */
export interface Finding {
  /** the network that the request comes from: what is fetched is counted for it */
  network: string
  /**
   * A client that was here before is found as it was, for a day, when its document can't be fetched just now: what
   * it has been granted lives on. Left out: for a new authorization only what its document says now counts.
   */
  asItWas?: boolean
  /** judges the rest of the request, before anything is fetched for it; throws when it is worth nothing */
  beforeFetch?: () => void
}

/**
 * Finds a client: one that is registered, or one whose identifier is the address of its metadata document.
 *
 * The row of a document's client is the cache of the document. It is fetched when there is no row, or when the
 * row is too old.
 *
 * @returns `undefined` when there is no such client
 * @throws {OAuthError} `invalid_client` when its document can't be used, `temporarily_unavailable` when it can't be
 *   fetched just now
 */
export async function findClient(context: Context, clientId: string, finding: Finding): Promise<ClientRow | undefined> {
  if (!isClientIdUrl(clientId)) return findStoredClient(context.db, clientId)
  const { config, db } = context
  if (!config.metadataDocument) return undefined
  if (clientIdUrlProblem(clientId, config.metadataDocumentLoopback) !== undefined) {
    throw new OAuthError('invalid_client', 'client_id is not a usable URL', 'client_id_url_malformed')
  }
  const hosts = { allow: config.metadataDocumentAllow, deny: config.metadataDocumentDeny }
  if (!isHostAllowed(new URL(clientId).hostname, hosts)) {
    throw new OAuthError('invalid_client', 'clients of this host are not accepted here', 'client_host_refused')
  }
  const state = await findDocumentState(db, clientId)
  if (state?.fresh) return state.client
  finding.beforeFetch?.()
  if (!finding.asItWas || !state?.servesAsItWas) return fetchDocument(context, clientId, finding.network)
  if (state.failedLately) return state.client
  try {
    return await fetchDocument(context, clientId, finding.network)
  } catch (error) {
    if (!(error instanceof OAuthError)) throw error
    // keys of its own may have been withdrawn, and a limit of ours is something that a thief could bring about
    if (isOwnLimit(error) && state.client.jwks !== null) throw error
    return state.client
  }
}

/** The host whose document describes a client, for people to judge; `undefined` for one that is registered. */
export function documentHost(client: ClientRow): string | undefined {
  return client.registration === 'document' ? new URL(client.id).host : undefined
}
