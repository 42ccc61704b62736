import { type Kysely, type RawBuilder, sql } from 'kysely'
import { batched } from './batch.ts'
import { isAsJudged, isSameClient } from './client.ts'
import type { Database, TokenFormat } from './database.ts'
import { endOf } from './lifetime.ts'
import { inOrder, statement } from './statement.ts'

/** What an access token was issued for. Instants are seconds since 1970. */
export interface IssuedAccessToken {
  /** space-separated */
  scope: string
  /** whole seconds that are left */
  expiresInSeconds: number
  issuedAtSeconds: number
  expiresAtSeconds: number
  /** `null`: issued to the client itself */
  userId: string | null
  resourceUri: string
  tokenFormat: TokenFormat
  /** thumbprint of the key that it is bound to (RFC 9449 §6) */
  dpopJkt: string | null
}

/** One that was issued for an entry of a batch. */
export type IssuedForEntry = IssuedAccessToken & { entry: number }

/** Columns of `IssuedAccessToken` from `a`: an access token, or what becomes one, with `uri` and `token_format` of its resource. */
export const ISSUED: RawBuilder<unknown> = sql`
  a.scope,
  floor(date_part('epoch', a.expires_at - now())) as "expiresInSeconds",
  floor(date_part('epoch', a.issued_at)) as "issuedAtSeconds",
  floor(date_part('epoch', a.expires_at)) as "expiresAtSeconds",
  a.user_id as "userId", a.uri as "resourceUri", a.token_format as "tokenFormat", a.dpop_jkt as "dpopJkt"`

const COLUMNS = sql`
  token_hash, family_id, client_id, client_incarnation, user_id, resource_id, scope, dpop_jkt, issued_at, expires_at`

/** A part of a statement: stores access tokens, from rows that have all of their columns. */
export function insertAccessTokensFrom(rows: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`insert into access_token (${COLUMNS}) select ${COLUMNS} from ${rows}`
}

/** An access token for the client itself. */
export interface NewClientToken {
  tokenHash: Buffer
  clientId: string
  /** by which it was judged, if its row was recalled (`isAsJudged`) */
  clientVersion?: string | undefined
  resourceId: string
  /** by which it was judged, if its row was recalled */
  resourceVersion?: string | undefined
  scope: string
  dpopJkt: string | undefined
  /** where neither client nor resource server has a lifetime of its own */
  accessTokenSeconds: number
}

const insertTokens = statement<
  IssuedForEntry,
  | 'tokenHashes'
  | 'clientIds'
  | 'clientVersions'
  | 'resourceIds'
  | 'resourceVersions'
  | 'scopes'
  | 'dpopJkts'
  | 'accessTokenSeconds'
>(
  (v) => sql`
    with asked as (
      select p.*, c.incarnation as client_incarnation, null::uuid as family_id, null::uuid as user_id, r.uri, r.token_format, now() as issued_at,
        ${endOf('access_token_seconds', sql`p.access_seconds`)} as expires_at
      from unnest(
        ${v.tokenHashes}::bytea[], ${v.clientIds}::text[], ${v.clientVersions}::uuid[], ${v.resourceIds}::uuid[],
        ${v.resourceVersions}::uuid[], ${v.scopes}::text[], ${v.dpopJkts}::text[], ${v.accessTokenSeconds}::integer[]
      ) with ordinality as p (
        token_hash, client_id, client_version, resource_id, resource_version, scope, dpop_jkt, access_seconds, entry
      )
      join client c on c.id = p.client_id and c.disabled_at is null and ${isAsJudged(sql`c`)}
      join resource r on r.id = p.resource_id and (p.resource_version is null or r.version = p.resource_version)
    ), issued as (${insertAccessTokensFrom(sql`asked`)})
    select a.entry::integer - 1 as entry, ${ISSUED} from asked a`,
)

/**
 * Issues access tokens to clients themselves, with no family (RFC 6749 §4.4): one statement for any number of entries.
 *
 * @returns in the order of the entries; `undefined` where the client has been disabled, or the resource removed, in
 *   between, or a recalled row is outdated
 */
export async function insertClientTokens(
  db: Kysely<Database>,
  tokens: NewClientToken[],
): Promise<(IssuedAccessToken | undefined)[]> {
  const rows = await insertTokens(db, {
    tokenHashes: tokens.map((one) => one.tokenHash),
    clientIds: tokens.map((one) => one.clientId),
    clientVersions: tokens.map((one) => one.clientVersion ?? null),
    resourceIds: tokens.map((one) => one.resourceId),
    resourceVersions: tokens.map((one) => one.resourceVersion ?? null),
    scopes: tokens.map((one) => one.scope),
    dpopJkts: tokens.map((one) => one.dpopJkt ?? null),
    accessTokenSeconds: tokens.map((one) => one.accessTokenSeconds),
  })
  return inOrder(tokens, rows)
}

/** Issues one, in one statement with others. */
export const insertClientToken = batched(insertClientTokens)

/** A resource server asks about a token. */
export interface Lookup {
  /** a UUID: the resource server's client_id */
  resourceId: string
  /** `undefined` when the presented text can't be an access token */
  tokenHash: Buffer | undefined
}

/** A token that holds. Instants are seconds since 1970. */
export interface ActiveToken {
  clientId: string
  /** `null`: issued to the client itself */
  familyId: string | null
  /** `null`: issued to the client itself */
  userId: string | null
  username: string | null
  scope: string
  dpopJkt: string | null
  issuedAtSeconds: number
  expiresAtSeconds: number
}

/** The resource server that asked, and the token if it holds there. */
export interface LookedUp {
  secretHash: Buffer
  resourceUri: string
  tokenFormat: TokenFormat
  /** when it was looked up, in seconds since 1970 */
  nowSeconds: number
  token: ActiveToken | undefined
}

/** A row of the look-up; what is said of a token that doesn't hold is `null`. */
type LookupRow = Omit<LookedUp, 'token'> & Omit<ActiveToken, 'clientId'> & { entry: number; clientId: string | null }

const selectAccessTokens = statement<LookupRow, 'resourceIds' | 'tokenHashes'>(
  ({ resourceIds, tokenHashes }) => sql`
    select p.entry::integer - 1 as entry, r.secret_hash as "secretHash", r.uri as "resourceUri",
      r.token_format as "tokenFormat",
      floor(date_part('epoch', now())) as "nowSeconds",
      t.client_id as "clientId", t.family_id as "familyId",
      t.user_id as "userId", t.username, t.scope, t.dpop_jkt as "dpopJkt",
      floor(date_part('epoch', t.issued_at)) as "issuedAtSeconds",
      floor(date_part('epoch', t.expires_at)) as "expiresAtSeconds"
    from unnest(${resourceIds}::uuid[], ${tokenHashes}::bytea[]) with ordinality as p (resource_id, token_hash, entry)
    join resource r on r.id = p.resource_id
    left join lateral (
      select a.client_id, a.family_id, a.user_id, u.username, a.scope, a.dpop_jkt, a.issued_at, a.expires_at
      from access_token a
      join client c on c.id = a.client_id and c.disabled_at is null and ${isSameClient(sql`a`)}
      left join "user" u on u.id = a.user_id and u.disabled_at is null
      where a.token_hash = p.token_hash and a.resource_id = r.id and a.expires_at > now()
        and (u.id is not null or a.user_id is null)
        and not exists (select from token_family f where f.id = a.family_id and f.revoked_at is not null)
    ) t on true`,
)

/**
 * Looks up resource servers with tokens: one statement for any number of entries. Primary keys, and of families the index
 * of those that were ended (`token_family_ended`).
 *
 * A token holds until it expires, unless its family was ended (it was issued for no longer than that would last), its
 * user or its client is disabled, or the client has gone; and only for the resource that it was issued for.
 *
 * @returns in the order of the entries; `undefined` where there is no such resource server
 */
export async function lookUpAccessTokens(db: Kysely<Database>, lookups: Lookup[]): Promise<(LookedUp | undefined)[]> {
  const rows = await selectAccessTokens(db, {
    resourceIds: lookups.map((one) => one.resourceId),
    tokenHashes: lookups.map((one) => one.tokenHash ?? null),
  })
  const found = new Array<LookedUp | undefined>(lookups.length)
  for (const row of rows) {
    const { secretHash, resourceUri, tokenFormat, nowSeconds } = row
    found[row.entry] = { secretHash, resourceUri, tokenFormat, nowSeconds, token: holds(row) ? row : undefined }
  }
  return found
}

function holds(row: LookupRow): row is LookupRow & ActiveToken {
  return row.clientId !== null
}

/** Looks up one, in one statement with others. */
export const lookUpAccessToken = batched(lookUpAccessTokens)

/** Ends an access token, if it belongs to the client (RFC 7009 §2.1); the rest of its family lives on. */
export async function revokeAccessToken(db: Kysely<Database>, tokenHash: Buffer, clientId: string): Promise<void> {
  await sql`
    delete from access_token where token_hash = ${tokenHash} and client_id = ${clientId}`.execute(db)
}
