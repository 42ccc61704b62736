import type { Context } from '../context.ts'
import { freshSeconds } from '../protocol/cache-control.ts'
import { consentDigest } from '../protocol/metadata-document.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import type { ClientRow } from '../store/database.ts'
import { findDocumentState, noteDocumentFailure, saveDocumentClient } from '../store/metadata-document.ts'
import { createCoalescer } from './coalesce.ts'
import { FetchError } from './fetch-json.ts'
import { countFetch } from './network-limit.ts'
import { readDocumentMetadata } from './read-metadata.ts'
import { storedMetadata, UNUSED_KEPT_PER_NETWORK } from './register.ts'

const MOST_BYTES = 5 * 1024

/** How long a document is used before it is fetched again. */
const CACHED_SECONDS = { least: 30, most: 86_400, fallback: 300 }

const fetchOnce = createCoalescer<ClientRow>()

/**
 * Fetches the metadata document of a client (draft-ietf-oauth-client-id-metadata-document §4), and keeps what it
 * says as the client's row. Whoever asks meanwhile waits for the same answer.
 *
 * What is wrong is in the log, and the sender isn't told: it would learn what names and addresses this machine sees.
 *
 * @param clientId a usable URL of a host that is allowed
 * @param network that is charged, if the fetch isn't under way already
 * @throws {OAuthError} `invalid_client`, `temporarily_unavailable`
 */
export async function fetchDocument(context: Context, clientId: string, network: string): Promise<ClientRow> {
  const work = async () => {
    const state = await findDocumentState(context.db, clientId)
    if (state?.fresh) return state.client // somebody was quicker
    try {
      return await fetchAndSave(context, clientId, network)
    } catch (error) {
      const problem = problemOf(error)
      if (problem === undefined) throw error
      await noteDocumentFailure(context.db, clientId)
      context.log.info({ event: 'metadata_document_refused', client_id: clientId, ...problem }, 'document refused')
      throw problem.passing
        ? new OAuthError('temporarily_unavailable', UNAVAILABLE, 'metadata_document_unavailable', {
            retryAfterSeconds: 30,
          })
        : new OAuthError('invalid_client', UNUSABLE, 'metadata_document_unusable')
    }
  }
  return fetchOnce(context, clientId, work, () => countFetch(context, network, clientId))
}

const UNAVAILABLE = 'the metadata document of this client can not be fetched right now'
const UNUSABLE = 'the metadata document of this client can not be used'

async function fetchAndSave(context: Context, clientId: string, network: string): Promise<ClientRow> {
  const { value, headers } = await context.fetchJson(clientId, MOST_BYTES)
  const { metadata, methods } = readDocumentMetadata(context, clientId, value)
  const [weakest = 'none'] = methods // what is asked of the client: more it may do by itself
  return saveDocumentClient(
    context.db,
    {
      id: clientId,
      ...storedMetadata({ ...metadata, tokenEndpointAuthMethod: weakest }, null),
      tokenEndpointAuthMethods: methods,
      consentDigest: consentDigest(metadata, methods),
      registrationSource: network,
      seconds: freshSeconds(headers, CACHED_SECONDS),
    },
    UNUSED_KEPT_PER_NETWORK,
  )
}

function problemOf(error: unknown): { reason: string; passing: boolean } | undefined {
  if (error instanceof FetchError) return { reason: error.reason, passing: error.passing }
  const isAboutDocument =
    error instanceof OAuthError && ['invalid_client_metadata', 'invalid_redirect_uri'].includes(error.code)
  return isAboutDocument ? { reason: error.message, passing: false } : undefined
}
