import { type Kysely, type RawBuilder, sql } from 'kysely'
import { type JudgedFamily, SUPERSEDED_KEPT } from '../protocol/refresh-token.ts'
import { ISSUED, type IssuedAccessToken, type IssuedForEntry, insertAccessTokensFrom } from './access-token.ts'
import { batched } from './batch.ts'
import { isAsJudged, isSameClient } from './client.ts'
import type { Database } from './database.ts'
import { endOf, secondsOf } from './lifetime.ts'
import { isRequested } from './resource.ts'
import { inOrder, statement } from './statement.ts'

/** A secret that pairs are derived from, for many families. */
export interface PairKey {
  id: string
  key: Buffer
}

/**
 * A process derives pairs from one key for so long. Its row is kept for so much longer than its first rotation needs, so
 * that it is written once.
 */
export const PAIR_KEY_SECONDS = 60

/** One rotation: the presented token, what is asked for, and the pair that replaces it. */
export interface Rotation {
  lineageHash: Buffer
  generation: number
  secretHash: Buffer
  clientId: string
  /** by which it was judged, if its row was recalled (`isAsJudged`) */
  clientVersion?: string | undefined
  /** `undefined`: everything that was granted */
  requestedScope: string[] | undefined
  /** forms of the requested resource, the best first; `undefined` when none was requested */
  resourceCandidates: string[] | undefined
  newSecretHash: Buffer
  accessTokenHash: Buffer
  /** thumbprint of the key that proved possession (RFC 9449 §5) */
  dpopJkt: string | undefined
  /** whether that key binds the refresh token, too */
  bindsRefreshToken: boolean
  /** what the new pair is derived from, kept for those who converge on it */
  pairKey: PairKey
  /** seconds, where neither client nor resource server has its own */
  lifetimes: { accessTokenSeconds: number; refreshTokenSeconds: number; refreshGraceSeconds: number }
}

const rotateFamilies = statement<IssuedForEntry, keyof ReturnType<typeof rotationValues>>(
  (v) => sql`
    with joined as materialized (
      select p.*, f.client_incarnation, f.user_id, f.resource_id, f.access_token_hash as superseded_token_hash,
        r.uri, r.token_format,
        ${secondsOf('refresh_grace_seconds', sql`p.default_grace_seconds`)} as grace_seconds,
        ${endOf('refresh_token_seconds', sql`p.refresh_seconds`)} as idle_ends_at,
        ${endOf('access_token_seconds', sql`p.access_seconds`)} as access_ends_at
      from unnest(
        ${v.lineageHashes}::bytea[],
        ${v.generations}::bigint[],
        ${v.secretHashes}::bytea[],
        ${v.clientIds}::text[],
        ${v.clientVersions}::uuid[],
        ${v.scopes}::text[],
        ${v.resources}::text[],
        ${v.newSecretHashes}::bytea[],
        ${v.accessTokenHashes}::bytea[],
        ${v.pairKeyIds}::uuid[],
        ${v.pairKeys}::bytea[],
        ${v.dpopJkts}::text[],
        ${v.binds}::boolean[],
        ${v.accessTokenSeconds}::integer[],
        ${v.refreshTokenSeconds}::integer[],
        ${v.refreshGraceSeconds}::integer[]
      ) with ordinality as p (
        lineage_hash, generation, secret_hash, client_id, client_version, scope, resource, new_secret_hash, token_hash,
        pair_key_id, pair_key, dpop_jkt, binds, access_seconds, refresh_seconds, default_grace_seconds, entry
      )
      join token_family f using (lineage_hash)
      join client c on c.id = f.client_id and c.disabled_at is null and ${isSameClient(sql`f`)}
      join "user" u on u.id = f.user_id and u.disabled_at is null
      join resource r on r.id = f.resource_id
      where f.client_id is not distinct from p.client_id -- an equality would search a new table by client
        and ${isAsJudged(sql`c`)}
        and ${isRequested(sql`p.resource`)}
      order by lineage_hash -- so that overlapping batches change rows in one order
    ), rotated as (
      update token_family f set
        generation = f.generation + 1,
        secret_hash = joined.new_secret_hash,
        superseded_secret_hashes = case when joined.grace_seconds > 0
          then (array_prepend(f.secret_hash, f.superseded_secret_hashes))[1:${sql.lit(SUPERSEDED_KEPT)}] else '{}' end,
        superseded_at = case when joined.grace_seconds > 0
          then (array_prepend(now(), f.superseded_at))[1:${sql.lit(SUPERSEDED_KEPT)}] else '{}' end,
        pair_key_id = joined.pair_key_id,
        pair_ends_at = now() + make_interval(secs => joined.grace_seconds),
        access_token_hash = joined.token_hash,
        dpop_jkt = coalesce(f.dpop_jkt, case when joined.binds then joined.dpop_jkt end),
        dpop_generation = case when f.dpop_jkt is null then f.generation + 1 else f.dpop_generation end,
        last_used_at = now(),
        expires_at = least(f.ends_at, joined.idle_ends_at)
      from joined
      where f.lineage_hash = joined.lineage_hash
        and f.generation = joined.generation
        and f.secret_hash = joined.secret_hash
        and f.revoked_at is null
        and f.expires_at > now()
        and (f.dpop_jkt is null or f.dpop_jkt = joined.dpop_jkt)
        and (joined.scope is null or f.scope = '{}' or f.scope && string_to_array(joined.scope, ' '))
      returning joined.entry, joined.token_hash, f.id as family_id, joined.client_id, joined.client_incarnation, joined.user_id, joined.resource_id,
        array_to_string(case when joined.scope is null then f.scope else array(
          select name from unnest(f.scope) with ordinality as s (name, position)
          where name = any(string_to_array(joined.scope, ' ')) order by position
        ) end, ' ') as scope,
        joined.dpop_jkt, now() as issued_at, least(f.expires_at, joined.access_ends_at) as expires_at,
        joined.superseded_token_hash, joined.pair_key_id, joined.pair_key, f.pair_ends_at, joined.uri, joined.token_format
    ), superseded as (
      delete from access_token a using rotated where a.token_hash = rotated.superseded_token_hash
    ), issued as (${insertAccessTokensFrom(sql`rotated`)}), kept as (
      insert into pair_key (id, key, ends_at)
      select pair_key_id, pair_key, needed_until + make_interval(secs => ${sql.lit(PAIR_KEY_SECONDS)})
      from (
        select pair_key_id, pair_key, max(pair_ends_at) as needed_until from rotated
        where pair_ends_at > now() group by pair_key_id, pair_key
      ) as needed
      where not exists (select from pair_key k where k.id = pair_key_id and k.ends_at >= needed_until)
      order by pair_key_id
      on conflict (id) do update set ends_at = greatest(pair_key.ends_at, excluded.ends_at)
    )
    select a.entry::integer - 1 as entry, ${ISSUED} from rotated a`,
)

/**
 * Rotates refresh tokens: each family that has the presented generation and secret goes on to the next, its access token
 * is superseded by a new one, and for the grace window the pair before stays known, and what the new one is derived
 * from. Without a window no generation stays known: one that begins later is none for them.
 *
 * One statement for any number of entries. First each is joined with what it refers to, in the order of the lineage, and
 * rows are changed in that order, so that overlapping batches don't deadlock: connections of the server neither hash nor
 * merge (`store/connection.ts`), and a loop over a sorted relation keeps its order. (Where a table was empty when this was
 * planned, Postgres may loop over the table; a deadlock would then cost a second, and a statement for each entry.) What may change in the family stands
 * on its row, and is checked again after a wait: whoever loses a race changes nothing. The access token that is superseded
 * was read before that; it is the right one, since the generation is. At most one entry for a lineage.
 *
 * Unique index on lineage_hash, primary keys.
 *
 * @returns in the order of the entries; `undefined` where no row changed
 */
export async function rotateTokenFamilies(
  db: Kysely<Database>,
  rotations: Rotation[],
): Promise<(IssuedAccessToken | undefined)[]> {
  return inOrder(rotations, await rotateFamilies(db, rotationValues(rotations)))
}

/** Rotates one refresh token, in one statement with those of others. */
export const rotateTokenFamily = batched(rotateTokenFamilies, ({ lineageHash }) => lineageHash.toString('latin1'))

/** The rotations, column by column. */
function rotationValues(rotations: Rotation[]) {
  return {
    lineageHashes: rotations.map((one) => one.lineageHash),
    generations: rotations.map((one) => one.generation),
    secretHashes: rotations.map((one) => one.secretHash),
    clientIds: rotations.map((one) => one.clientId),
    clientVersions: rotations.map((one) => one.clientVersion ?? null),
    scopes: rotations.map((one) => one.requestedScope?.join(' ') ?? null),
    resources: rotations.map((one) => one.resourceCandidates?.join(' ') ?? null),
    newSecretHashes: rotations.map((one) => one.newSecretHash),
    accessTokenHashes: rotations.map((one) => one.accessTokenHash),
    pairKeyIds: rotations.map((one) => one.pairKey.id),
    pairKeys: rotations.map((one) => one.pairKey.key),
    dpopJkts: rotations.map((one) => one.dpopJkt ?? null),
    binds: rotations.map((one) => one.bindsRefreshToken),
    accessTokenSeconds: rotations.map((one) => one.lifetimes.accessTokenSeconds),
    refreshTokenSeconds: rotations.map((one) => one.lifetimes.refreshTokenSeconds),
    refreshGraceSeconds: rotations.map((one) => one.lifetimes.refreshGraceSeconds),
  }
}

/** A family with its current pair. */
export interface StoredFamily extends JudgedFamily {
  id: string
  grantedScope: string[]
  resourceUri: string
  /** of the current pair, while tokens converge on it */
  pairKey: Buffer | null
  /** the current access token, as long as it lives */
  accessToken: IssuedAccessToken | undefined
}

type FamilyRow = Omit<StoredFamily, 'superseded' | 'accessToken'> &
  IssuedAccessToken & {
    supersededSecretHashes: Buffer[]
    openWindows: number
    hasToken: boolean
  }

/**
 * Finds the family of a lineage (unique index).
 *
 * A superseded generation's window is open as long as it lasts by what is configured now, and the current pair is
 * kept: that was decided at the newest rotation, and a window that has grown since opens nothing again.
 *
 * @param graceSeconds the grace window, where neither client nor resource server has its own
 */
export async function findTokenFamily(
  db: Kysely<Database>,
  lineageHash: Buffer,
  graceSeconds: number,
): Promise<StoredFamily | undefined> {
  const { rows } = await sql<FamilyRow>`
    select f.id, f.client_id as "clientId", f.generation::float8 as generation, f.secret_hash as "secretHash",
      f.revoked_at is not null or u.disabled_at is not null or c.disabled_at is not null
        or not ${isSameClient(sql`f`)} as ended,
      f.expires_at <= now() as expired,
      f.superseded_secret_hashes as "supersededSecretHashes",
      (select count(*)::integer from unnest(f.superseded_at) as superseded (at)
        where at > now() - make_interval(secs => ${secondsOf('refresh_grace_seconds', sql`${graceSeconds}`)})
          and k.key is not null
      ) as "openWindows",
      f.scope as "grantedScope", r.uri as "resourceUri", k.key as "pairKey", f.dpop_jkt as "familyDpopJkt",
      f.dpop_generation::float8 as "dpopGeneration", a.token_hash is not null as "hasToken",
      ${ISSUED}
    from token_family f
    join client c on c.id = f.client_id
    join "user" u on u.id = f.user_id
    join resource r on r.id = f.resource_id
    left join lateral (
      select t.*, r.uri, r.token_format from access_token t
      where t.token_hash = f.access_token_hash and t.expires_at > now()
    ) a on true
    left join pair_key k on k.id = f.pair_key_id and f.pair_ends_at > now()
    where f.lineage_hash = ${lineageHash}`.execute(db)
  const row = rows[0]
  if (row === undefined) return undefined
  const { supersededSecretHashes, openWindows, hasToken, ...family } = row
  return {
    ...family,
    superseded: supersededSecretHashes
      .slice(0, openWindows) // newest first, so the open windows come first
      .map((secretHash, age) => ({ generation: row.generation - 1 - age, secretHash })),
    accessToken: hasToken ? family : undefined,
  }
}

/**
 * Issues one more access token beside the current pair, to a request that wants another scope, or another key,
 * than the pair has.
 *
 * @param seconds lifetime where neither client nor resource server has its own
 * @returns `undefined` when the family has ended in between
 */
export async function insertAccessTokenBeside(
  db: Kysely<Database>,
  familyId: string,
  token: { tokenHash: Buffer; scope: string; dpopJkt: string | undefined; seconds: number },
): Promise<IssuedAccessToken | undefined> {
  const { rows } = await sql<IssuedAccessToken>`
    with asked as (
      select f.id as family_id, f.client_id, f.client_incarnation, f.user_id, f.resource_id, r.uri, r.token_format,
        ${token.tokenHash}::bytea as token_hash, ${token.scope}::text as scope, ${token.dpopJkt ?? null}::text as dpop_jkt,
        now() as issued_at,
        least(f.expires_at, ${endOf('access_token_seconds', sql`${token.seconds}`)}) as expires_at
      from token_family f join client c on c.id = f.client_id join resource r on r.id = f.resource_id
      where f.id = ${familyId} and f.revoked_at is null and f.expires_at > now()
    ), issued as (${insertAccessTokensFrom(sql`asked`)})
    select ${ISSUED} from asked a`.execute(db)
  return rows[0]
}

/**
 * Ends a family: all its tokens become inactive at once, and its consent is forgotten, so that the client has to ask
 * again. Repeating it is harmless.
 *
 * @returns `false` when it had ended before
 */
export async function revokeTokenFamily(db: Kysely<Database>, familyId: string, reason: string): Promise<boolean> {
  return (await endFamilies(db, sql`id = ${familyId}`, reason)).length > 0 // primary key
}

/**
 * Ends a family of a person, or all of them, because the person wants it (index on user_id).
 *
 * @param familyId `undefined`: all
 * @returns the ids of those that ended now
 */
export async function revokeTokenFamiliesOfUser(
  db: Kysely<Database>,
  userId: string,
  familyId: string | undefined,
): Promise<string[]> {
  const one = familyId === undefined ? sql`` : sql`and id = ${familyId}`
  return endFamilies(db, sql`user_id = ${userId} ${one}`, 'revoked_by_person')
}

/** Ends the family of a lineage, if it belongs to the client (RFC 7009 §2.1). @returns its id when it ended now */
export async function revokeTokenFamilyOfClient(
  db: Kysely<Database>,
  lineageHash: Buffer,
  clientId: string,
): Promise<string | undefined> {
  const family = sql`lineage_hash = ${lineageHash} and client_id = ${clientId}` // unique index
  return (await endFamilies(db, family, 'revoked_by_client'))[0]
}

/** Rows are locked in the order of rotations, so that they can't wait for one another in a circle. */
async function endFamilies(db: Kysely<Database>, families: RawBuilder<unknown>, reason: string): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    with held as (
      select id from token_family where ${families} and revoked_at is null order by lineage_hash for no key update
    ), ended as (
      update token_family set revoked_at = now(), revoked_reason = ${reason}
      where id = any(array(select id from held)) and revoked_at is null
      returning id, user_id, client_id, resource_id
    ), forgotten as (
      delete from consent c using ended e
      where c.user_id = e.user_id and c.client_id = e.client_id and c.resource_id = e.resource_id
    )
    select id from ended`.execute(db)
  return rows.map(({ id }) => id)
}
