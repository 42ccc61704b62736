import { type Kysely, sql } from 'kysely'
import type { JudgedCode } from '../protocol/authorization-code.ts'
import type { IssuedAccessToken } from './access-token.ts'
import type { Database } from './database.ts'
import { type NewFamily, startTokenFamily } from './token-family.ts'

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
}

/** Keeps a code; `seconds` is how long it may be redeemed. */
export async function insertAuthorizationCode(
  db: Kysely<Database>,
  code: NewAuthorizationCode,
  seconds: number,
): Promise<void> {
  await sql`
    insert into authorization_code (
      code_hash, client_id, user_id, resource_id, redirect_uri, code_challenge, scope, dpop_jkt, approved_from,
      created_at, expires_at
    ) values (
      ${code.codeHash}, ${code.clientId}, ${code.userId}, ${code.resourceId}, ${code.redirectUri},
      ${code.codeChallenge}, ${code.scope}, ${code.dpopJkt ?? null}, ${code.approvedFrom},
      now(), now() + make_interval(secs => ${seconds})
    )`.execute(db)
}

/** What a token request says of a code. */
export interface Redemption {
  codeHash: Buffer
  clientId: string
  redirectUri: string | undefined
  /** S256 of the presented verifier */
  codeChallenge: string
  /** forms of the requested resource, the best first; `undefined` when none was requested */
  resourceCandidates: string[] | undefined
  /** thumbprint of the key whose possession was proved */
  dpopJkt: string | undefined
}

/**
 * Redeems a code and starts its token family, in one statement. Every condition stands on the code's row, so
 * that exactly one of any number of concurrent redemptions finds it unredeemed (primary key).
 *
 * @returns `undefined` when nothing was redeemed and nothing changed
 */
export async function redeemAuthorizationCode(
  db: Kysely<Database>,
  redemption: Redemption,
  family: NewFamily,
): Promise<IssuedAccessToken | undefined> {
  const { resourceCandidates } = redemption
  const redeemed = sql`
    update authorization_code c set redeemed_at = now(), family_id = ${family.familyId}
    from client, "user" u, resource r
    where c.code_hash = ${redemption.codeHash}
      and c.client_id = ${redemption.clientId}
      and c.code_challenge = ${redemption.codeChallenge}
      and c.redirect_uri = coalesce(${redemption.redirectUri ?? null}, c.redirect_uri)
      and c.redeemed_at is null
      and c.expires_at > now()
      and (c.dpop_jkt is null or c.dpop_jkt = ${redemption.dpopJkt ?? null})
      and client.id = c.client_id and client.disabled_at is null
      and u.id = c.user_id and u.disabled_at is null
      and r.id = c.resource_id
      and (${resourceCandidates ?? null}::text[] is null or r.uri = (
        select uri from resource where uri = any(${resourceCandidates ?? null}::text[])
        order by array_position(${resourceCandidates ?? null}::text[], uri) limit 1
      ))
    returning c.client_id, c.user_id, c.resource_id, c.scope, c.created_at as approved_at, c.approved_from`
  return startTokenFamily(db, redeemed, family)
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
