import { type RawBuilder, sql } from 'kysely'
import { ISSUED, insertAccessTokensFrom } from './access-token.ts'
import { endOf } from './lifetime.ts'

/** A token family that is about to start, with its first pair. */
export interface NewFamily {
  familyId: string
  /** `undefined` when the client gets no refresh token */
  refreshToken: { lineageHash: Buffer; secretHash: Buffer } | undefined
  accessTokenHash: Buffer
  /** thumbprint of the key that the access token is bound to */
  dpopJkt: string | undefined
  /** whether the refresh token is bound to that key, too */
  bindsRefreshToken: boolean
  /** lifetimes where neither client nor resource server has its own */
  accessTokenSeconds: number
  refreshTokenSeconds: number
  familySeconds: number
}

/** New families, column by column. */
export function newFamilyValues(families: NewFamily[]) {
  return {
    familyIds: families.map((one) => one.familyId),
    lineageHashes: families.map((one) => one.refreshToken?.lineageHash ?? null),
    secretHashes: families.map((one) => one.refreshToken?.secretHash ?? null),
    accessTokenHashes: families.map((one) => one.accessTokenHash),
    dpopJkts: families.map((one) => one.dpopJkt ?? null),
    binds: families.map((one) => one.bindsRefreshToken),
    accessTokenSeconds: families.map((one) => one.accessTokenSeconds),
    refreshTokenSeconds: families.map((one) => one.refreshTokenSeconds),
    familySeconds: families.map((one) => one.familySeconds),
  }
}

export type NewFamilyPlaceholders = Record<keyof ReturnType<typeof newFamilyValues>, RawBuilder<unknown>>

/** Arguments of `unnest` for new families, in the order of `newFamilyValues`; `NEW_FAMILY` names their columns. */
export function newFamilyArrays(v: NewFamilyPlaceholders): RawBuilder<unknown> {
  return sql`
    ${v.familyIds}::uuid[], ${v.lineageHashes}::bytea[], ${v.secretHashes}::bytea[], ${v.accessTokenHashes}::bytea[],
    ${v.dpopJkts}::text[], ${v.binds}::boolean[], ${v.accessTokenSeconds}::integer[],
    ${v.refreshTokenSeconds}::integer[], ${v.familySeconds}::integer[]`
}

export const NEW_FAMILY: RawBuilder<unknown> = sql`
  family_id, lineage_hash, secret_hash, token_hash, dpop_jkt, binds, access_seconds, refresh_seconds, family_seconds`

/** What a redemption takes from a client `c` and a resource `r` for the family that it starts, of its entry `p`. */
export const FAMILY_TERMS: RawBuilder<unknown> = sql`
  c.incarnation as client_incarnation, r.uri, r.token_format,
  ${endOf('access_token_seconds', sql`p.access_seconds`)} as access_ends_at,
  case when p.lineage_hash is null then ${endOf('access_token_seconds', sql`p.access_seconds`)}
    else ${endOf('refresh_token_seconds', sql`p.refresh_seconds`)} end as idle_ends_at,
  ${endOf('family_seconds', sql`p.family_seconds`)} as ends_at`

/**
 * A statement that starts token families for what people have approved.
 *
 * @param approved a statement that changes the rows of the approvals, and returns `entry` (from 1), the columns
 *   `NEW_FAMILY` and `FAMILY_TERMS` but for the lifetimes, and `client_id`, `user_id`, `resource_id`, `granted_scope`,
 *   `approved_at` and `approved_from` of each that may be redeemed; everything happens in one statement with it
 * @returns rows of `IssuedForEntry`, for those that were started
 */
export function startTokenFamilies(approved: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`
    with approved as (${approved}), new_family as (
      select a.*, array_to_string(granted_scope, ' ') as scope, least(idle_ends_at, ends_at) as family_expires_at,
        now() as issued_at, least(access_ends_at, idle_ends_at, ends_at) as expires_at
      from approved a
    ), started as (
      insert into token_family (
        id, client_id, client_incarnation, user_id, resource_id, scope, lineage_hash, generation, secret_hash,
        superseded_secret_hashes, superseded_at, access_token_hash, dpop_jkt,
        created_at, last_used_at, expires_at, ends_at, removal_check_at, approved_at, approved_from
      )
      select family_id, client_id, client_incarnation, user_id, resource_id, granted_scope, lineage_hash, 0, secret_hash,
        '{}', '{}', token_hash, case when binds then dpop_jkt end, now(), now(), family_expires_at, ends_at, family_expires_at,
        approved_at, approved_from
      from new_family
    ), used as (
      update client set unused_since = null
      where id = any(array(select distinct client_id from approved)) and unused_since is not null
    ), issued as (${insertAccessTokensFrom(sql`new_family`)})
    select a.entry::integer - 1 as entry, ${ISSUED} from new_family a`
}
