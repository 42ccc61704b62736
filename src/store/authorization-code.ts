import { type Kysely, sql } from 'kysely'
import type { JudgedCode } from '../protocol/authorization-code.ts'
import type { IssuedAccessToken, IssuedForEntry } from './access-token.ts'
import { batched } from './batch.ts'
import { isAsJudged } from './client.ts'
import type { Database } from './database.ts'
import { inOrder, statement } from './statement.ts'
import { type NewFamily, newFamilyValues, startTokenFamilies } from './token-family.ts'

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
  startTokenFamilies(
    v,
    sql`
        with held as (
          select p.*, string_to_array(p.resource, ' ') as resource_uris
          from unnest(
            ${v.codeHashes}::bytea[], ${v.clientIds}::text[], ${v.clientVersions}::uuid[], ${v.codeChallenges}::text[],
            ${v.redirectUris}::text[], ${v.proofJkts}::text[], ${v.resources}::text[], ${v.familyIds}::uuid[]
          ) with ordinality as p (
            code_hash, client_id, client_version, code_challenge, redirect_uri, proof_jkt, resource, family_id, entry
          )
          join authorization_code c using (code_hash)
          order by code_hash for no key update of c -- overlapping batches can't deadlock
        )
        update authorization_code c set redeemed_at = now(), family_id = p.family_id
        from held p, client, "user" u, resource r
        where c.code_hash = p.code_hash
          and c.client_id = p.client_id
          and c.code_challenge = p.code_challenge
          and c.redirect_uri = coalesce(p.redirect_uri, c.redirect_uri)
          and c.redeemed_at is null
          and c.expires_at > now()
          and (c.dpop_jkt is null or c.dpop_jkt = p.proof_jkt)
          and client.id = c.client_id and client.disabled_at is null
          and ${isAsJudged(sql`client`)}
          and u.id = c.user_id and u.disabled_at is null
          and r.id = c.resource_id
          and (p.resource is null or r.uri = (
            select uri from resource where uri = any(p.resource_uris) order by array_position(p.resource_uris, uri) limit 1
          ))
        returning p.entry, c.client_id, c.user_id, c.resource_id, c.scope, c.created_at as approved_at,
          c.approved_from`,
  ),
)

/**
 * Redeems codes and starts their token families: one statement for any number of entries, at most one for a code.
 * Every condition stands on the code's row, so that exactly one of any number of concurrent redemptions finds it
 * unredeemed (primary key).
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
    proofJkts: redemptions.map((one) => one.dpopJkt ?? null),
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
