import { type Kysely, sql } from 'kysely'
import type { JudgedCode } from '../protocol/authorization-code.ts'
import type { Database } from './database.ts'

export interface NewAuthorizationCode {
  codeHash: Buffer
  clientId: string
  userId: string
  resourceId: string
  redirectUri: string
  codeChallenge: string
  scope: string[]
}

/** Keeps a code; `seconds` is how long it may be redeemed. */
export async function insertAuthorizationCode(
  db: Kysely<Database>,
  code: NewAuthorizationCode,
  seconds: number,
): Promise<void> {
  await sql`
    insert into authorization_code (
      code_hash, client_id, user_id, resource_id, redirect_uri, code_challenge, scope, created_at, expires_at
    ) values (
      ${code.codeHash}, ${code.clientId}, ${code.userId}, ${code.resourceId}, ${code.redirectUri},
      ${code.codeChallenge}, ${code.scope}, now(), now() + make_interval(secs => ${seconds})
    )`.execute(db)
}

/** A redemption, and the token family that it starts. */
export interface Redemption {
  codeHash: Buffer
  clientId: string
  redirectUri: string | undefined
  /** S256 of the presented verifier */
  codeChallenge: string
  /** forms of the requested resource, the best first; `undefined` when none was requested */
  resourceCandidates: string[] | undefined
  familyId: string
  /** `undefined` when the client gets no refresh token */
  refreshToken: { lineageHash: Buffer; secretHash: Buffer } | undefined
  accessTokenHash: Buffer
  accessTokenSeconds: number
  refreshTokenSeconds: number
  familySeconds: number
}

/** What an access token was issued for. */
export interface IssuedAccessToken {
  /** space-separated */
  scope: string
  /** whole seconds */
  expiresInSeconds: number
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
): Promise<IssuedAccessToken | undefined> {
  const { refreshToken, resourceCandidates } = redemption
  const idleSeconds = refreshToken === undefined ? redemption.accessTokenSeconds : redemption.refreshTokenSeconds
  const { rows } = await sql<IssuedAccessToken>`
    with redeemed as (
      update authorization_code c set redeemed_at = now(), family_id = ${redemption.familyId}
      from client, "user" u, resource r
      where c.code_hash = ${redemption.codeHash}
        and c.client_id = ${redemption.clientId}
        and c.code_challenge = ${redemption.codeChallenge}
        and c.redirect_uri = coalesce(${redemption.redirectUri ?? null}, c.redirect_uri)
        and c.redeemed_at is null
        and c.expires_at > now()
        and client.id = c.client_id and client.disabled_at is null
        and u.id = c.user_id and u.disabled_at is null
        and r.id = c.resource_id
        and (${resourceCandidates ?? null}::text[] is null or r.uri = (
          select uri from resource where uri = any(${resourceCandidates ?? null}::text[])
          order by array_position(${resourceCandidates ?? null}::text[], uri) limit 1
        ))
      returning c.client_id, c.user_id, c.resource_id, c.scope,
        now() + make_interval(secs => ${redemption.familySeconds}) as ends_at
    ), family as (
      insert into token_family (
        id, client_id, user_id, resource_id, scope, lineage_hash, generation, secret_hash,
        superseded_secret_hashes, superseded_at, access_token_hash, created_at, last_used_at, expires_at, ends_at
      )
      select ${redemption.familyId}, client_id, user_id, resource_id, scope,
        ${refreshToken?.lineageHash ?? null}::bytea, 0, ${refreshToken?.secretHash ?? null}::bytea,
        '{}', '{}', ${redemption.accessTokenHash}::bytea, now(), now(),
        least(now() + make_interval(secs => ${idleSeconds}), ends_at), ends_at
      from redeemed
      returning expires_at
    ), used as (
      update client set unused_since = null
      where id in (select client_id from redeemed) and unused_since is not null
    ), issued as (
      insert into access_token (token_hash, family_id, resource_id, scope, issued_at, expires_at)
      select ${redemption.accessTokenHash}, ${redemption.familyId}, resource_id, array_to_string(scope, ' '), now(),
        least(now() + make_interval(secs => ${redemption.accessTokenSeconds}), family.expires_at)
      from redeemed, family
      returning scope, expires_at
    )
    select scope, floor(extract(epoch from expires_at - now()))::float8 as "expiresInSeconds" from issued`.execute(db)
  return rows[0]
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
      c.expires_at <= now() as expired, c.family_id as "familyId", r.uri as "resourceUri",
      extract(epoch from now() - c.redeemed_at)::float8 as "redeemedSecondsAgo"
    from authorization_code c left join resource r on r.id = c.resource_id
    where c.code_hash = ${codeHash}`.execute(db)
  const row = rows[0]
  return row && { ...row, redeemedSecondsAgo: row.redeemedSecondsAgo ?? undefined }
}
