import { type Kysely, type RawBuilder, sql } from 'kysely'
import { type JudgedFamily, SUPERSEDED_KEPT } from '../protocol/refresh-token.ts'
import type { IssuedAccessToken } from './authorization-code.ts'
import type { Database } from './database.ts'

/** One rotation: the presented token, what is asked for, and the pair that replaces it. */
export interface Rotation {
  lineageHash: Buffer
  generation: number
  secretHash: Buffer
  clientId: string
  /** `undefined`: everything that was granted */
  requestedScope: string[] | undefined
  /** forms of the requested resource, the best first; `undefined` when none was requested */
  resourceCandidates: string[] | undefined
  newSecretHash: Buffer
  accessTokenHash: Buffer
  /** the new pair, sealed, for those who converge on it; `undefined` when there is no grace window */
  sealedPair: Buffer | undefined
}

/** Lifetimes that apply to all rotations. */
export interface RotationLifetimes {
  accessTokenSeconds: number
  refreshTokenSeconds: number
}

/**
 * Rotates refresh tokens: each family that has the presented generation and secret goes on to the next, its
 * access token is superseded by a new one, and the pair before stays known for the grace window.
 *
 * One statement for any number of entries. Rows are locked in the order of their lineage, so that overlapping
 * batches can't deadlock, and every condition stands on the family's row, so that it is checked again after
 * a wait: whoever loses a race changes nothing. At most one entry for a lineage.
 *
 * Unique index on lineage_hash, primary keys.
 *
 * @returns in the order of the entries; `undefined` where no row changed
 */
export async function rotateTokenFamilies(
  db: Kysely<Database>,
  rotations: Rotation[],
  lifetimes: RotationLifetimes,
): Promise<(IssuedAccessToken | undefined)[]> {
  const { rows } = await sql<IssuedAccessToken & { entry: number }>`
    with presented as (
      select lineage_hash, generation, secret_hash, client_id, new_secret_hash, token_hash, sealed_pair, entry,
        string_to_array(scope, ' ') as scope, string_to_array(resource, ' ') as resource
      from unnest(
        ${rotations.map((one) => one.lineageHash)}::bytea[],
        ${rotations.map((one) => one.generation)}::bigint[],
        ${rotations.map((one) => one.secretHash)}::bytea[],
        ${rotations.map((one) => one.clientId)}::text[],
        ${rotations.map((one) => one.requestedScope?.join(' ') ?? null)}::text[],
        ${rotations.map((one) => one.resourceCandidates?.join(' ') ?? null)}::text[],
        ${rotations.map((one) => one.newSecretHash)}::bytea[],
        ${rotations.map((one) => one.accessTokenHash)}::bytea[],
        ${rotations.map((one) => one.sealedPair ?? null)}::bytea[]
      ) with ordinality as p (
        lineage_hash, generation, secret_hash, client_id, scope, resource, new_secret_hash, token_hash, sealed_pair, entry
      )
    ), held as (
      select f.id, f.access_token_hash
      from token_family f join presented p on p.lineage_hash = f.lineage_hash
      order by f.lineage_hash
      for no key update of f
    ), rotated as (
      update token_family f set
        generation = f.generation + 1,
        secret_hash = p.new_secret_hash,
        superseded_secret_hashes = (array_prepend(f.secret_hash, f.superseded_secret_hashes))[1:${sql.lit(SUPERSEDED_KEPT)}],
        superseded_at = (array_prepend(now(), f.superseded_at))[1:${sql.lit(SUPERSEDED_KEPT)}],
        access_token_hash = p.token_hash,
        sealed_pair = p.sealed_pair,
        sealed_at = case when p.sealed_pair is null then null else now() end,
        last_used_at = now(),
        expires_at = least(now() + make_interval(secs => ${lifetimes.refreshTokenSeconds}), f.ends_at)
      from presented p, held h, client c, "user" u, resource r
      where f.id = h.id
        and f.lineage_hash = p.lineage_hash
        and f.generation = p.generation
        and f.secret_hash = p.secret_hash
        and f.client_id = p.client_id
        and f.revoked_at is null
        and f.expires_at > now()
        and (p.scope is null or f.scope = '{}' or f.scope && p.scope)
        and c.id = f.client_id and c.disabled_at is null
        and u.id = f.user_id and u.disabled_at is null
        and r.id = f.resource_id
        and (p.resource is null or r.uri = (
          select uri from resource where uri = any(p.resource) order by array_position(p.resource, uri) limit 1
        ))
      returning f.id, f.resource_id, f.expires_at, p.entry, p.token_hash, h.access_token_hash as superseded_token_hash,
        array_to_string(array(
          select name from unnest(f.scope) with ordinality as s (name, position)
          where p.scope is null or name = any(p.scope) order by position
        ), ' ') as scope
    ), superseded as (
      delete from access_token a using rotated where a.token_hash = rotated.superseded_token_hash
    ), issued as (
      insert into access_token (token_hash, family_id, resource_id, scope, issued_at, expires_at)
      select token_hash, id, resource_id, scope, now(),
        least(now() + make_interval(secs => ${lifetimes.accessTokenSeconds}), expires_at)
      from rotated
      returning token_hash, scope, expires_at
    )
    select rotated.entry::integer - 1 as entry, issued.scope,
      floor(extract(epoch from issued.expires_at - now()))::float8 as "expiresInSeconds"
    from issued join rotated using (token_hash)`.execute(db)
  const issued = new Map(rows.map(({ entry, scope, expiresInSeconds }) => [entry, { scope, expiresInSeconds }]))
  return rotations.map((_, entry) => issued.get(entry))
}

/** A family with its current pair. */
export interface StoredFamily extends JudgedFamily {
  id: string
  scope: string[]
  resourceUri: string
  sealedPair: Buffer | null
  /** the current access token, as long as it lives */
  accessToken: IssuedAccessToken | undefined
}

interface FamilyRow {
  id: string
  clientId: string
  ended: boolean
  expired: boolean
  generation: number
  secretHash: Buffer
  supersededSecretHashes: Buffer[]
  openWindows: number
  scope: string[]
  resourceUri: string
  sealedPair: Buffer | null
  tokenScope: string | null
  tokenSeconds: number | null
}

/** Finds the family of a lineage (unique index); `graceSeconds` says which superseded generations still count. */
export async function findTokenFamily(
  db: Kysely<Database>,
  lineageHash: Buffer,
  graceSeconds: number,
): Promise<StoredFamily | undefined> {
  const { rows } = await sql<FamilyRow>`
    select f.id, f.client_id as "clientId", f.generation::float8 as generation, f.secret_hash as "secretHash",
      f.revoked_at is not null or u.disabled_at is not null or c.disabled_at is not null as ended,
      f.expires_at <= now() as expired,
      f.superseded_secret_hashes as "supersededSecretHashes",
      (select count(*)::integer from unnest(f.superseded_at) as s (at)
        where at > now() - make_interval(secs => ${graceSeconds})) as "openWindows",
      f.scope, r.uri as "resourceUri", f.sealed_pair as "sealedPair",
      a.scope as "tokenScope", floor(extract(epoch from a.expires_at - now()))::float8 as "tokenSeconds"
    from token_family f
    join client c on c.id = f.client_id
    join "user" u on u.id = f.user_id
    join resource r on r.id = f.resource_id
    left join access_token a on a.token_hash = f.access_token_hash and a.expires_at > now()
    where f.lineage_hash = ${lineageHash}`.execute(db)
  const row = rows[0]
  if (row === undefined) return undefined
  const { supersededSecretHashes, openWindows, tokenScope, tokenSeconds, ...family } = row
  return {
    ...family,
    superseded: supersededSecretHashes
      .slice(0, openWindows) // newest first, so the open windows come first
      .map((secretHash, age) => ({ generation: row.generation - 1 - age, secretHash })),
    accessToken:
      tokenScope === null || tokenSeconds === null ? undefined : { scope: tokenScope, expiresInSeconds: tokenSeconds },
  }
}

/**
 * Issues one more access token beside the current pair, to a request that wants another scope than the pair has.
 *
 * @returns `undefined` when the family has ended in between
 */
export async function insertAccessTokenBeside(
  db: Kysely<Database>,
  familyId: string,
  token: { tokenHash: Buffer; scope: string; seconds: number },
): Promise<IssuedAccessToken | undefined> {
  const { rows } = await sql<IssuedAccessToken>`
    insert into access_token (token_hash, family_id, resource_id, scope, issued_at, expires_at)
    select ${token.tokenHash}, f.id, f.resource_id, ${token.scope}, now(),
      least(now() + make_interval(secs => ${token.seconds}), f.expires_at)
    from token_family f
    where f.id = ${familyId} and f.revoked_at is null and f.expires_at > now()
    returning scope, floor(extract(epoch from expires_at - now()))::float8 as "expiresInSeconds"`.execute(db)
  return rows[0]
}

/**
 * Ends a family: all its tokens become inactive at once, and its consent is forgotten, so that the client has to ask
 * again. Repeating it is harmless.
 *
 * @returns `false` when it had ended before
 */
export async function revokeTokenFamily(db: Kysely<Database>, familyId: string, reason: string): Promise<boolean> {
  return (await endFamily(db, sql`id = ${familyId}`, reason)) !== undefined // primary key
}

/** Ends the family of a lineage, if it belongs to the client (RFC 7009 §2.1). @returns its id when it ended now */
export async function revokeTokenFamilyOfClient(
  db: Kysely<Database>,
  lineageHash: Buffer,
  clientId: string,
): Promise<string | undefined> {
  const family = sql`lineage_hash = ${lineageHash} and client_id = ${clientId}` // unique index
  return endFamily(db, family, 'revoked_by_client')
}

async function endFamily(
  db: Kysely<Database>,
  family: RawBuilder<unknown>,
  reason: string,
): Promise<string | undefined> {
  const { rows } = await sql<{ id: string }>`
    with ended as (
      update token_family set revoked_at = now(), revoked_reason = ${reason}, sealed_pair = null, sealed_at = null
      where ${family} and revoked_at is null
      returning id, user_id, client_id, resource_id
    ), forgotten as (
      delete from consent c using ended e
      where c.user_id = e.user_id and c.client_id = e.client_id and c.resource_id = e.resource_id
    )
    select id from ended`.execute(db)
  return rows[0]?.id
}

/** A living grant: what one person allowed one installation of a client. */
export interface Grant {
  id: string
  username: string
  clientId: string
  clientName: string | null
  resource: string
  scope: string[]
  createdAt: Date
  lastUsedAt: Date
  expiresAt: Date
}

/** Living grants, the newest first; narrowed to a user or a client when given. */
export async function listGrants(
  db: Kysely<Database>,
  filter: { usernameKey?: string | undefined; clientId?: string | undefined },
): Promise<Grant[]> {
  const { rows } = await sql<Grant>`
    select f.id, u.username, f.client_id as "clientId", c.name as "clientName", r.uri as resource, f.scope,
      f.created_at as "createdAt", f.last_used_at as "lastUsedAt", f.expires_at as "expiresAt"
    from token_family f
    join "user" u on u.id = f.user_id
    join client c on c.id = f.client_id
    join resource r on r.id = f.resource_id
    where f.revoked_at is null and f.expires_at > now()
      and u.username_key = coalesce(${filter.usernameKey ?? null}, u.username_key)
      and f.client_id = coalesce(${filter.clientId ?? null}, f.client_id)
    order by f.created_at desc, f.id`.execute(db)
  return rows
}
