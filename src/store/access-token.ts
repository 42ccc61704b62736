import { type Kysely, sql } from 'kysely'
import type { Database } from './database.ts'

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
  userId: string
  username: string
  scope: string
  issuedAtSeconds: number
  expiresAtSeconds: number
}

/** The resource server that asked, and the token if it holds there. */
export interface LookedUp {
  secretHash: Buffer
  resourceUri: string
  token: ActiveToken | undefined
}

/**
 * Looks up resource servers with tokens: one statement for any number of entries, primary keys throughout.
 *
 * A token holds while neither it nor its family has ended, and neither its user nor its client is disabled; and
 * only for the resource that it was issued for.
 *
 * @returns in the order of the entries; `undefined` where there is no such resource server
 */
export async function lookUpAccessTokens(db: Kysely<Database>, lookups: Lookup[]): Promise<(LookedUp | undefined)[]> {
  const { rows } = await sql<Omit<LookedUp, 'token'> & Partial<ActiveToken> & { entry: number; found: boolean }>`
    select p.entry::integer - 1 as entry, r.secret_hash as "secretHash", r.uri as "resourceUri",
      t.client_id is not null as found, t.client_id as "clientId", t.user_id as "userId", t.username, t.scope,
      floor(extract(epoch from t.issued_at))::float8 as "issuedAtSeconds",
      floor(extract(epoch from t.expires_at))::float8 as "expiresAtSeconds"
    from unnest(
      ${lookups.map((one) => one.resourceId)}::uuid[],
      ${lookups.map((one) => one.tokenHash ?? null)}::bytea[]
    ) with ordinality as p (resource_id, token_hash, entry)
    join resource r on r.id = p.resource_id
    left join lateral (
      select f.client_id, f.user_id, u.username, a.scope, a.issued_at, a.expires_at
      from access_token a
      join token_family f on f.id = a.family_id and f.revoked_at is null and f.expires_at > now()
      join "user" u on u.id = f.user_id and u.disabled_at is null
      join client c on c.id = f.client_id and c.disabled_at is null
      where a.token_hash = p.token_hash and a.resource_id = r.id and a.expires_at > now()
    ) t on true`.execute(db)
  const found = new Map(rows.map((row) => [row.entry, row]))
  return lookups.map((_, entry) => {
    const row = found.get(entry)
    if (row === undefined) return undefined
    const { secretHash, resourceUri, entry: _entry, found: holds, ...token } = row
    return { secretHash, resourceUri, token: holds ? (token as ActiveToken) : undefined }
  })
}

/** Ends an access token, if it belongs to the client (RFC 7009 §2.1); the rest of its family lives on. */
export async function revokeAccessToken(db: Kysely<Database>, tokenHash: Buffer, clientId: string): Promise<boolean> {
  const { rows } = await sql`
    delete from access_token a using token_family f
    where a.token_hash = ${tokenHash} and f.id = a.family_id and f.client_id = ${clientId}
    returning 1`.execute(db)
  return rows.length === 1
}
