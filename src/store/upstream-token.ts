import { type Kysely, type RawBuilder, sql } from 'kysely'
import type { Database } from './database.ts'

/** Names the tokens of a person at a provider. */
export interface UpstreamTokenKey {
  userId: string
  providerId: string
}

/** Tokens of a provider, sealed. */
export interface SealedUpstreamTokens extends UpstreamTokenKey {
  accessToken: Buffer
  /** `undefined`: the one that is stored stays */
  refreshToken: Buffer | undefined
  /** fingerprint of the key */
  sealedWith: Buffer
  scope: string | undefined
  /** `undefined` when the provider doesn't say */
  expiresInSeconds: number | undefined
}

/**
 * Keeps what a provider issued at a sign-in, instead of what was there (primary keys), if the account is still linked,
 * and the provider's tokens are still kept: both are locked for as long. A refresh that is under way loses, unless the
 * provider issued no refresh token: then the one that it gives is needed.
 */
export async function storeUpstreamTokens(db: Kysely<Database>, tokens: SealedUpstreamTokens): Promise<void> {
  const { userId, providerId, accessToken, refreshToken, sealedWith, scope, expiresInSeconds } = tokens
  await sql`
    insert into upstream_token as t (
      user_id, provider_id, access_token, refresh_token, sealed_with, scope, expires_at, updated_at
    )
    select a.user_id, a.provider_id, ${accessToken}, ${refreshToken ?? null}::bytea, ${sealedWith},
      ${scope ?? null}::text, now() + make_interval(secs => ${expiresInSeconds ?? null}::float8), now()
    from upstream_account a join identity_provider p on p.id = a.provider_id
    where a.user_id = ${userId} and a.provider_id = ${providerId} and p.keeps_tokens
    for share of p for key share of a
    on conflict (user_id, provider_id) do update set
      access_token = excluded.access_token, refresh_token = coalesce(excluded.refresh_token, t.refresh_token),
      sealed_with = case when excluded.refresh_token is null and t.refresh_token is not null
        then t.sealed_with else excluded.sealed_with end, -- the older one, which is sealed anew some time
      scope = excluded.scope, expires_at = excluded.expires_at,
      updated_at = excluded.updated_at, ended_at = null,
      refresh_lease = case when excluded.refresh_token is null then t.refresh_lease end,
      refresh_lease_until = case when excluded.refresh_token is null then t.refresh_lease_until end`.execute(db)
}

/** The tokens of a person at a provider, sealed. */
export interface StoredUpstreamTokens {
  accessToken: Buffer
  /** whether there is a refresh token */
  canRefresh: boolean
  scope: string | null
  /** how long the access token still holds, at the provider's word; `null` when it doesn't say */
  secondsLeft: number | null
  /** since these tokens were issued */
  ageSeconds: number
  /** changes with the tokens */
  version: string
  /** whether somebody refreshes right now */
  leased: boolean
}

/** Finds the tokens of a person at a provider, unless the provider has refused to refresh them (primary key). */
export async function findUpstreamTokens(
  db: Kysely<Database>,
  { userId, providerId }: UpstreamTokenKey,
): Promise<StoredUpstreamTokens | undefined> {
  const { rows } = await sql<StoredUpstreamTokens>`
    select access_token as "accessToken", refresh_token is not null as "canRefresh", scope,
      floor(extract(epoch from expires_at - now()))::float8 as "secondsLeft",
      extract(epoch from now() - updated_at)::float8 as "ageSeconds", updated_at::text as version,
      coalesce(refresh_lease_until > now(), false) as leased
    from upstream_token
    where user_id = ${userId} and provider_id = ${providerId} and ended_at is null`.execute(db)
  return rows[0]
}

/** The right to refresh the tokens of a person at a provider, which one holds at a time. */
export interface RefreshLease extends UpstreamTokenKey {
  id: string
}

/**
 * Takes the right to refresh, for `seconds`: of any number of replicas one gets it, if the tokens are still those
 * of the version (primary key).
 *
 * @returns the refresh token, sealed; `undefined` for whoever doesn't get it
 */
export async function leaseUpstreamRefresh(
  db: Kysely<Database>,
  lease: RefreshLease,
  version: string,
  seconds: number,
): Promise<Buffer | undefined> {
  const { rows } = await sql<{ refreshToken: Buffer }>`
    update upstream_token
    set refresh_lease = ${lease.id}, refresh_lease_until = now() + make_interval(secs => ${seconds})
    where user_id = ${lease.userId} and provider_id = ${lease.providerId}
      and updated_at = ${version}::timestamptz and ended_at is null and refresh_token is not null
      and (refresh_lease_until is null or refresh_lease_until <= now())
    returning refresh_token as "refreshToken"`.execute(db)
  return rows[0]?.refreshToken
}

/**
 * Keeps what a refresh gave, and gives the lease back. A scope that the provider doesn't name is the one from before
 * (RFC 6749 §5.1).
 *
 * @returns `false` when the lease was lost, and nothing changed
 */
export async function storeRefreshedTokens(
  db: Kysely<Database>,
  lease: RefreshLease,
  tokens: SealedUpstreamTokens,
): Promise<boolean> {
  const { accessToken, refreshToken, sealedWith, scope, expiresInSeconds } = tokens
  return changeLeased(
    db,
    lease,
    sql`
      access_token = ${accessToken}, refresh_token = ${refreshToken ?? null}, sealed_with = ${sealedWith},
      scope = coalesce(${scope ?? null}, scope), updated_at = now(),
      expires_at = now() + make_interval(secs => ${expiresInSeconds ?? null}::float8)`,
  )
}

/**
 * Ends tokens whose refresh token the provider has refused; the next sign-in there begins anew.
 *
 * @returns `false` when the lease was lost, and nothing changed
 */
export async function endUpstreamTokens(db: Kysely<Database>, lease: RefreshLease): Promise<boolean> {
  return changeLeased(db, lease, sql`ended_at = now(), refresh_token = null`)
}

/** Gives the lease back after a refresh that came to nothing: others may try at once. */
export async function releaseUpstreamRefresh(db: Kysely<Database>, lease: RefreshLease): Promise<void> {
  await changeLeased(db, lease, sql`ended_at = ended_at`)
}

/** Changes tokens and gives the lease back, if it is still held: a sign-in in between has taken it away (primary key). */
async function changeLeased(
  db: Kysely<Database>,
  { userId, providerId, id }: RefreshLease,
  changes: RawBuilder<unknown>,
): Promise<boolean> {
  const { rows } = await sql`
    update upstream_token set ${changes}, refresh_lease = null, refresh_lease_until = null
    where user_id = ${userId} and provider_id = ${providerId} and refresh_lease = ${id}
    returning 1`.execute(db)
  return rows.length === 1
}

/** Tokens with the key that they were sealed with. */
export interface SealedTokensRow extends UpstreamTokenKey {
  accessToken: Buffer
  refreshToken: Buffer | null
}

/**
 * Tokens that another key has sealed than the current one, in the order of their keys (index on sealed_with).
 *
 * @param after the last one of the batch before
 */
export async function listTokensSealedOtherwise(
  db: Kysely<Database>,
  sealedWith: Buffer,
  after: UpstreamTokenKey | undefined,
  limit: number,
): Promise<SealedTokensRow[]> {
  const { rows } = await sql<SealedTokensRow>`
    select user_id as "userId", provider_id as "providerId", access_token as "accessToken",
      refresh_token as "refreshToken"
    from upstream_token
    where (sealed_with < ${sealedWith} or sealed_with > ${sealedWith})
      and (${after?.userId ?? null}::uuid is null or (user_id, provider_id) > (${after?.userId ?? null}::uuid, ${after?.providerId ?? null}::text))
    order by user_id, provider_id limit ${limit}`.execute(db)
  return rows
}

/** Replaces tokens by the same ones, sealed anew, unless there are others by now (primary key). */
export async function replaceSealedTokens(
  db: Kysely<Database>,
  before: SealedTokensRow,
  anew: Pick<SealedUpstreamTokens, 'accessToken' | 'refreshToken' | 'sealedWith'>,
): Promise<boolean> {
  const { rows } = await sql`
    update upstream_token
    set access_token = ${anew.accessToken}, refresh_token = ${anew.refreshToken ?? null}, sealed_with = ${anew.sealedWith}
    where user_id = ${before.userId} and provider_id = ${before.providerId}
      and access_token = ${before.accessToken} and refresh_token is not distinct from ${before.refreshToken}
    returning 1`.execute(db)
  return rows.length === 1
}
