import { type Kysely, sql } from 'kysely'
import type { Database } from './database.ts'

/** A sign-in that a browser has begun, and that goes on when it comes back from the provider. */
export interface UpstreamSignIn {
  providerId: string
  /** the user who wants to link an account; `null` at a sign-in */
  linkUserId: string | null
  /** where the browser goes on to, as a query of the sign-in page */
  continueQuery: string
}

/** Keeps a sign-in that has begun, for `seconds`. */
export async function insertUpstreamSignIn(
  db: Kysely<Database>,
  key: { stateHash: Buffer; browserHash: Buffer },
  signIn: UpstreamSignIn,
  seconds: number,
): Promise<void> {
  await sql`
    insert into upstream_sign_in (state_hash, browser_hash, provider_id, link_user_id, continue_query, expires_at)
    values (
      ${key.stateHash}, ${key.browserHash}, ${signIn.providerId}, ${signIn.linkUserId}, ${signIn.continueQuery},
      now() + make_interval(secs => ${seconds})
    )`.execute(db)
}

/**
 * Takes a sign-in, once, for the browser that began it; another browser takes nothing, and spoils nothing (primary
 * key).
 */
export async function takeUpstreamSignIn(
  db: Kysely<Database>,
  key: { stateHash: Buffer; browserHash: Buffer },
): Promise<UpstreamSignIn | undefined> {
  const { rows } = await sql<UpstreamSignIn>`
    delete from upstream_sign_in
    where state_hash = ${key.stateHash} and browser_hash = ${key.browserHash} and expires_at > now()
    returning provider_id as "providerId", link_user_id as "linkUserId", continue_query as "continueQuery"`.execute(db)
  return rows[0]
}
