import { type Kysely, sql } from 'kysely'
import type { JudgedCode } from '../protocol/authorization-code.ts'
import type { IssuedAccessToken, IssuedForEntry } from './access-token.ts'
import { batched } from './batch.ts'
import { isAsJudged } from './client.ts'
import type { Database } from './database.ts'
import {
  FAMILY_TERMS,
  NEW_FAMILY,
  type NewFamily,
  newFamilyArrays,
  newFamilyValues,
  startTokenFamilies,
} from './new-family.ts'
import { isRequested } from './resource.ts'
import { inOrder, statement } from './statement.ts'

export interface NewAuthorizationCode {
  codeHash: Buffer
  clientId: string
  userId: string
  resourceId: string
  redirectUri: string
  codeChallenge: string
  scope: string[]
  /** thumbprint of the key that must redeem it (RFC 9449 §10) */
  dpopJkt: string | undefined
  /** address of the browser in which the person agreed */
  approvedFrom: string
  /** how long it may be redeemed */
  seconds: number
}

const insertCodes = statement<never, keyof NewAuthorizationCode>(
  (v) => sql`
    insert into authorization_code (
      code_hash, client_id, user_id, resource_id, redirect_uri, code_challenge, scope, dpop_jkt, approved_from,
      created_at, expires_at
    )
    select code_hash, client_id, user_id, resource_id, redirect_uri, code_challenge, string_to_array(scope, ' '),
      dpop_jkt, approved_from, now(), now() + make_interval(secs => seconds)
    from unnest(
      ${v.codeHash}::bytea[], ${v.clientId}::text[], ${v.userId}::uuid[], ${v.resourceId}::uuid[],
      ${v.redirectUri}::text[], ${v.codeChallenge}::text[], ${v.scope}::text[], ${v.dpopJkt}::text[],
      ${v.approvedFrom}::text[], ${v.seconds}::integer[]
    ) as n (
      code_hash, client_id, user_id, resource_id, redirect_uri, code_challenge, scope, dpop_jkt, approved_from, seconds
    )`,
)

/** Keeps a code, in one statement with others. */
export const insertAuthorizationCode = batched(async (db, codes: NewAuthorizationCode[]): Promise<undefined[]> => {
  await insertCodes(db, {
    codeHash: codes.map((one) => one.codeHash),
    clientId: codes.map((one) => one.clientId),
    userId: codes.map((one) => one.userId),
    resourceId: codes.map((one) => one.resourceId),
    redirectUri: codes.map((one) => one.redirectUri),
    codeChallenge: codes.map((one) => one.codeChallenge),
    scope: codes.map((one) => one.scope.join(' ')),
    dpopJkt: codes.map((one) => one.dpopJkt ?? null),
    approvedFrom: codes.map((one) => one.approvedFrom),
    seconds: codes.map((one) => one.seconds),
  })
  return codes.map(() => undefined)
})

/** What a token request says of a code. */
export interface Redemption {
  codeHash: Buffer
  clientId: string
  /** by which it was judged, if its row was recalled (`isAsJudged`) */
  clientVersion?: string | undefined
  redirectUri: string | undefined
  /** S256 of the presented verifier */
  codeChallenge: string
  /** forms of the requested resource, the best first; `undefined` when none was requested */
  resourceCandidates: string[] | undefined
  /** thumbprint of the key whose possession was proved */
  dpopJkt: string | undefined
}

const redeemCodes = statement<IssuedForEntry, keyof ReturnType<typeof redemptionValues>>((v) =>
  startTokenFamilies(sql`
    with joined as materialized (
      select p.*, a.place, a.user_id, a.resource_id, a.scope as granted_scope, a.created_at as approved_at, a.approved_from,
        ${FAMILY_TERMS}
      from unnest(
        ${v.codeHashes}::bytea[], ${v.clientIds}::text[], ${v.clientVersions}::uuid[], ${v.codeChallenges}::text[],
        ${v.redirectUris}::text[], ${v.resources}::text[], ${newFamilyArrays(v)}
      ) with ordinality as p (
        code_hash, client_id, client_version, code_challenge, redirect_uri, resource, ${NEW_FAMILY}, entry
      )
      cross join lateral (
        -- "offset 0" keeps this apart, so that codes are found by their index even if planned when there were none
        select *, ctid as place from authorization_code where code_hash = p.code_hash offset 0
      ) a
      join client c on c.id = a.client_id and c.disabled_at is null and c.created_at <= a.created_at
      join "user" u on u.id = a.user_id and u.disabled_at is null
      join resource r on r.id = a.resource_id
      where a.client_id = p.client_id
        and a.code_challenge = p.code_challenge
        and a.redirect_uri = coalesce(p.redirect_uri, a.redirect_uri)
        and (a.dpop_jkt is null or a.dpop_jkt = p.dpop_jkt)
        and ${isAsJudged(sql`c`)}
        and ${isRequested(sql`p.resource`)}
      order by p.code_hash -- so that overlapping batches change rows in one order
    )
    update authorization_code a set redeemed_at = now(), family_id = joined.family_id
    from joined
    where a.ctid = joined.place -- a row changes its place when it is redeemed, and then isn't to be changed anyway
      and a.code_hash = joined.code_hash
      and a.redeemed_at is null and a.expires_at > now()
    returning joined.*`),
)

/**
 * Redeems codes and starts their token families: one statement for any number of entries, at most one for a code.
 * Whether a code is redeemed stands on its row, so that exactly one of any number of concurrent redemptions finds it
 * unredeemed (primary key); nothing else of it changes. Rows are changed in the order of their key, as rotations do.
 *
 * @returns in the order of the entries; `undefined` where nothing was redeemed and nothing changed
 */
export async function redeemAuthorizationCodes(
  db: Kysely<Database>,
  redemptions: (Redemption & { family: NewFamily })[],
): Promise<(IssuedAccessToken | undefined)[]> {
  return inOrder(redemptions, await redeemCodes(db, redemptionValues(redemptions)))
}

/** Redeems one code, in one statement with those of others. */
export const redeemAuthorizationCode = batched(redeemAuthorizationCodes, ({ codeHash }) => codeHash.toString('latin1'))

function redemptionValues(redemptions: (Redemption & { family: NewFamily })[]) {
  return {
    ...newFamilyValues(redemptions.map(({ family }) => family)),
    codeHashes: redemptions.map((one) => one.codeHash),
    clientIds: redemptions.map((one) => one.clientId),
    clientVersions: redemptions.map((one) => one.clientVersion ?? null),
    codeChallenges: redemptions.map((one) => one.codeChallenge),
    redirectUris: redemptions.map((one) => one.redirectUri ?? null),
    resources: redemptions.map((one) => one.resourceCandidates?.join(' ') ?? null),
  }
}

/** A code with the family that it started, if any, and the resource that it is for. */
export interface StoredCode extends JudgedCode {
  familyId: string | null
  resourceUri: string | null
}

/** Finds a code, redeemed or not (primary key). */
export async function findAuthorizationCode(db: Kysely<Database>, codeHash: Buffer): Promise<StoredCode | undefined> {
  const { rows } = await sql<Omit<StoredCode, 'redeemedSecondsAgo'> & { redeemedSecondsAgo: number | null }>`
    select c.client_id as "clientId", c.redirect_uri as "redirectUri", c.code_challenge as "codeChallenge",
      c.expires_at <= now() as expired, c.dpop_jkt as "dpopJkt", c.family_id as "familyId", r.uri as "resourceUri",
      extract(epoch from now() - c.redeemed_at)::float8 as "redeemedSecondsAgo"
    from authorization_code c left join resource r on r.id = c.resource_id
    where c.code_hash = ${codeHash}`.execute(db)
  const row = rows[0]
  return row && { ...row, redeemedSecondsAgo: row.redeemedSecondsAgo ?? undefined }
}
