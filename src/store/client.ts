import { type Kysely, type RawBuilder, sql } from 'kysely'
import type { PublicJwk } from '../protocol/client-assertion.ts'
import { batched } from './batch.ts'
import type { ClientRow, Database, Lifetimes } from './database.ts'
import { hasNoFamily, removeFamiliesOf } from './family-removal.ts'
import { noteConfiguredLifetime } from './signing-key.ts'
import { statement } from './statement.ts'

export interface NewClient {
  id: string
  name: string | null
  secretHash: Buffer | null
  tokenEndpointAuthMethod: string
  redirectUris: string[]
  grantTypes: string[]
  defaultScope: string[] | null
  /** the most that it may get; an operator's word */
  boundScope: string[] | null
  /** the only resources that it may ask for; `null` for any */
  resourceIds: string[] | null
  description: object
  registration: 'open' | 'token' | 'operator'
  dpopBoundAccessTokens: boolean
  requirePushedAuthorizationRequests: boolean
  /** keys of its own, or where it publishes them; `null` for a client that has none */
  jwks: PublicJwk[] | null
  jwksUri: string | null
  signingAlgorithm: string | null
  /** the network that it registered from; `null` for an operator */
  registrationSource: string | null
  /** lets it manage its registration; `null` for an operator's */
  registrationTokenHash: Buffer | null
}

/**
 * Adds a client.
 *
 * One that registered itself counts as unused until it reaches a grant. Of the unused ones from one network
 * the newest `unusedKept` stay: so their number is bounded, and whoever shares the network's address is
 * never locked out.
 *
 * Index client_unused_source serves the removal.
 */
export async function insertClient(db: Kysely<Database>, client: NewClient, unusedKept: number): Promise<ClientRow> {
  const unusedSince = client.registration === 'operator' ? null : sql`now()`
  const { rows } = await sql<ClientRow>`
    with surplus as (${removeSurplus(client, unusedKept)})
    insert into client (
      id, name, secret_hash, token_endpoint_auth_method, redirect_uris, grant_types, default_scope, bound_scope,
      resource_ids, description, registration, registration_source, registration_token_hash,
      dpop_bound_access_tokens, require_pushed_authorization_requests, jwks, jwks_uri,
      token_endpoint_auth_signing_alg, created_at, unused_since
    ) values (
      ${client.id}, ${client.name}, ${client.secretHash}, ${client.tokenEndpointAuthMethod}, ${client.redirectUris},
      ${client.grantTypes}, ${client.defaultScope}, ${client.boundScope}, ${client.resourceIds},
      ${JSON.stringify(client.description)}::jsonb, ${client.registration}, ${client.registrationSource},
      ${client.registrationTokenHash}, ${client.dpopBoundAccessTokens}, ${client.requirePushedAuthorizationRequests},
      ${keysOf(client)}, ${client.jwksUri}, ${client.signingAlgorithm}, now(), ${unusedSince}
    ) returning *`.execute(db)
  return rows[0] as ClientRow
}

/**
 * A part of a statement that adds a client: of the other unused ones from its network, the newest stay.
 *
 * A document's client that is disabled stays, too: it would come back at its next request, enabled.
 */
export function removeSurplus(
  added: Pick<NewClient, 'id' | 'registrationSource'>,
  unusedKept: number,
): RawBuilder<unknown> {
  return sql`
    delete from client where id = any(array(
      select id from client where id = any(array(
        select id from client
        where registration_source = ${added.registrationSource} and unused_since is not null
          and id <> ${added.id} and (registration <> 'document' or disabled_at is null)
        order by unused_since desc offset ${sql.lit(unusedKept - 1)} limit 10
      ))
      for update skip locked -- of these alone: below an offset, the rows that are passed over would be locked, too
    )) and ${hasNoFamily()}`
}

const selectClients = statement<ClientRow, 'ids'>(({ ids }) => sql`select * from client where id = any(${ids}::text[])`)

/**
 * Finds a client (primary key), disabled or not, in one statement with others. A row is read once, however many ask for
 * it: a connector that many people use is one client. So the row that they get is not for changing.
 */
export const findClient = batched(async (db, ids: string[]): Promise<(ClientRow | undefined)[]> => {
  const rows = await selectClients(db, { ids: [...new Set(ids)] })
  const found = new Map(rows.map((client) => [client.id, client]))
  return ids.map((id) => found.get(id))
})

/**
 * A condition of statements that issue: the client is as it was when it was judged. Their entry `p` has a
 * `client_version`: that of a recalled row, which must be fresh still if it is a document's; `null` when the row was read
 * for this request.
 *
 * @param c the client's row
 */
export function isAsJudged(c: RawBuilder<unknown>): RawBuilder<unknown> {
  const isFresh = sql`(${c}.document_expires_at > now()) is not false`
  return sql`(p.client_version is null or (${c}.version = p.client_version and ${isFresh}))`
}

/**
 * A condition: what belongs to the client `c` by its name was given to this one, and not to one that was removed before,
 * as a client with a metadata document may be, and come again.
 *
 * @param row what it was given: a family, or an access token
 */
export function isSameClient(row: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`c.incarnation = ${row}.client_incarnation`
}

/** Clients with the number of their living grants, the newest first. */
export async function listClients(db: Kysely<Database>): Promise<(ClientRow & { grants: number })[]> {
  const { rows } = await sql<ClientRow & { grants: number }>`
    select c.*, (
      select count(*)::integer from token_family f
      where f.client_id = c.id and f.revoked_at is null and f.expires_at > now()
    ) as grants
    from client c order by c.created_at desc, c.id`.execute(db)
  return rows
}

/** Metadata that replaces what a client has registered. */
export type ReplacedMetadata = Pick<
  NewClient,
  | 'name'
  | 'secretHash'
  | 'tokenEndpointAuthMethod'
  | 'redirectUris'
  | 'grantTypes'
  | 'defaultScope'
  | 'dpopBoundAccessTokens'
  | 'requirePushedAuthorizationRequests'
  | 'jwks'
  | 'jwksUri'
  | 'signingAlgorithm'
  | 'description'
>

/**
 * Replaces the metadata of a client. A secret that it has stays, whichever that is by now, as long as it needs one:
 * an operator may have replaced it a moment ago.
 *
 * @param metadata its `secretHash` is for a client that has no secret and needs one; `null` when it needs none
 * @returns `undefined` when there is no such client any more
 */
export async function replaceClientMetadata(
  db: Kysely<Database>,
  id: string,
  metadata: ReplacedMetadata,
): Promise<ClientRow | undefined> {
  return db
    .updateTable('client')
    .set({
      name: metadata.name,
      secret_hash: metadata.secretHash === null ? null : sql`coalesce(secret_hash, ${metadata.secretHash}::bytea)`,
      token_endpoint_auth_method: metadata.tokenEndpointAuthMethod,
      redirect_uris: metadata.redirectUris,
      grant_types: metadata.grantTypes,
      default_scope: metadata.defaultScope,
      dpop_bound_access_tokens: metadata.dpopBoundAccessTokens,
      require_pushed_authorization_requests: metadata.requirePushedAuthorizationRequests,
      jwks: keysOf(metadata),
      jwks_uri: metadata.jwksUri,
      token_endpoint_auth_signing_alg: metadata.signingAlgorithm,
      description: sql`${JSON.stringify(metadata.description)}::jsonb`,
    })
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirst()
}

/** What an operator may change about a client; what is left out stays. */
export type ClientChanges = Partial<Lifetimes & Pick<ClientRow, 'bound_scope' | 'must_push_requests'>>

/**
 * Changes what an operator decides about a client.
 *
 * @param defaultSeconds lifetime of access tokens where neither client nor resource server has its own
 */
export async function updateClient(
  db: Kysely<Database>,
  id: string,
  changes: ClientChanges,
  defaultSeconds: number,
): Promise<void> {
  await db.transaction().execute(async (trx) => {
    await trx.updateTable('client').set(changes).where('id', '=', id).execute()
    await noteConfiguredLifetime(trx, defaultSeconds)
  })
}

/** Replaces the secret: the old one is refused at once. */
export async function setClientSecret(db: Kysely<Database>, id: string, secretHash: Buffer): Promise<void> {
  await db.updateTable('client').set({ secret_hash: secretHash }).where('id', '=', id).execute()
}

/** Disables or enables a client: while disabled it gets nothing, and its tokens are inactive. */
export async function setClientDisabled(db: Kysely<Database>, id: string, disabled: boolean): Promise<void> {
  await db
    .updateTable('client')
    .set({ disabled_at: disabled ? sql`coalesce(disabled_at, now())` : null })
    .where('id', '=', id)
    .execute()
}

/**
 * Removes a client with everything that was granted to it.
 *
 * @returns how many living grants ended with it; `undefined` when there is no such client
 */
export async function removeClient(db: Kysely<Database>, id: string): Promise<number | undefined> {
  const { rows } = await sql<{ endedGrants: number }>`
    with removed as (delete from client where id = ${id} returning id), ${removeFamiliesOf('client_id')}`.execute(db)
  return rows[0]?.endedGrants
}

/** The keys as a column takes them: an array would become one of Postgres. */
export function keysOf({ jwks }: Pick<NewClient, 'jwks'>): RawBuilder<PublicJwk[] | null> {
  return sql`${jwks === null ? null : JSON.stringify(jwks)}::jsonb`
}
