import { type Kysely, sql } from 'kysely'
import { keysOf, type NewClient, type ReplacedMetadata, removeSurplus } from './client.ts'
import type { ClientRow, Database } from './database.ts'

/** A failed fetch isn't tried again for a client that can do without it. */
const PAUSE_SECONDS = 30

/** For how long an outdated row serves what was granted: an outage is over by then, or it is none. */
const OUTDATED_SECONDS = 86_400

/** The client of a metadata document, and how its row stands as a cache. */
export interface DocumentState {
  client: ClientRow
  fresh: boolean
  /** not outdated for too long */
  servesAsItWas: boolean
  /** the document could not be fetched a moment ago */
  failedLately: boolean
}

/** Finds the client of a metadata document (primary key). */
export async function findDocumentState(db: Kysely<Database>, id: string): Promise<DocumentState | undefined> {
  const row = await db
    .selectFrom('client')
    .selectAll()
    .select([
      sql<boolean>`document_expires_at > now()`.as('fresh'),
      sql<boolean>`document_expires_at > now() - make_interval(secs => ${OUTDATED_SECONDS})`.as('serves_as_it_was'),
      sql<boolean>`coalesce(document_failed_at > now() - make_interval(secs => ${PAUSE_SECONDS}), false)`.as(
        'failed_lately',
      ),
    ])
    .where('id', '=', id)
    .where('registration', '=', 'document')
    .executeTakeFirst()
  if (row === undefined) return undefined
  const { fresh, serves_as_it_was: servesAsItWas, failed_lately: failedLately } = row
  return { client: row, fresh, servesAsItWas, failedLately }
}

/** What a metadata document says, as it is kept. */
export interface DocumentClient extends Pick<NewClient, 'id'>, Omit<ReplacedMetadata, 'secretHash'> {
  tokenEndpointAuthMethods: string[]
  consentDigest: Buffer
  /** the network that it was fetched for, the first time */
  registrationSource: string
  /** how long it is fresh */
  seconds: number
}

/**
 * Keeps what a metadata document says. What an operator has decided about the client stays, and so does the time
 * since when it is unused.
 *
 * A new one counts as unused until it reaches a grant, and makes room like a client that registers itself
 * (insertClient); one that is disabled stays, since it could come back at any time.
 */
export async function saveDocumentClient(
  db: Kysely<Database>,
  client: DocumentClient,
  unusedKept: number,
): Promise<ClientRow> {
  const { rows } = await sql<ClientRow>`
    with surplus as (${removeSurplus(client, unusedKept)})
    insert into client (
      id, name, token_endpoint_auth_method, token_endpoint_auth_methods, redirect_uris, grant_types, default_scope,
      dpop_bound_access_tokens, require_pushed_authorization_requests, jwks, jwks_uri,
      token_endpoint_auth_signing_alg, description,
      document_digest, document_expires_at, registration, registration_source, created_at, unused_since
    ) values (
      ${client.id}, ${client.name}, ${client.tokenEndpointAuthMethod}, ${client.tokenEndpointAuthMethods},
      ${client.redirectUris}, ${client.grantTypes}, ${client.defaultScope}, ${client.dpopBoundAccessTokens},
      ${client.requirePushedAuthorizationRequests}, ${keysOf(client)}, ${client.jwksUri},
      ${client.signingAlgorithm}, ${JSON.stringify(client.description)}::jsonb,
      ${client.consentDigest}, now() + make_interval(secs => ${client.seconds}),
      'document', ${client.registrationSource}, now(), now()
    )
    on conflict (id) do update set
      name = excluded.name,
      token_endpoint_auth_method = excluded.token_endpoint_auth_method,
      token_endpoint_auth_methods = excluded.token_endpoint_auth_methods,
      redirect_uris = excluded.redirect_uris,
      grant_types = excluded.grant_types,
      default_scope = excluded.default_scope,
      dpop_bound_access_tokens = excluded.dpop_bound_access_tokens,
      require_pushed_authorization_requests = excluded.require_pushed_authorization_requests,
      jwks = excluded.jwks,
      jwks_uri = excluded.jwks_uri,
      token_endpoint_auth_signing_alg = excluded.token_endpoint_auth_signing_alg,
      description = excluded.description,
      document_digest = excluded.document_digest,
      document_expires_at = excluded.document_expires_at,
      document_failed_at = null
    returning *`.execute(db)
  return rows[0] as ClientRow
}

/** Notes that a document could not be fetched; without a row there is nothing to note. */
export async function noteDocumentFailure(db: Kysely<Database>, id: string): Promise<void> {
  await sql`
    update client set document_failed_at = now() where id = ${id} and registration = 'document'`.execute(db)
}
