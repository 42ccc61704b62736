import { type Kysely, sql } from 'kysely'
import type { Database } from './database.ts'

/** More browsers than people have: those that send no cookie would add one at each sign-in. */
const KEPT_PER_USER = 20

/** Remembers that a user has signed in from a browser; of each user's, the newest are kept. */
export async function insertKnownBrowser(
  db: Kysely<Database>,
  secretHash: Buffer,
  userId: string,
  seconds: number,
): Promise<void> {
  await sql`
    with surplus as (
      delete from known_browser where secret_hash in (
        select secret_hash from known_browser where user_id = ${userId}
        order by expires_at desc offset ${KEPT_PER_USER - 1}
      )
    )
    insert into known_browser (secret_hash, user_id, expires_at)
    values (${secretHash}, ${userId}, now() + make_interval(secs => ${seconds}))`.execute(db)
}

/** Whether the user with this name has signed in from the browser before. */
export async function isKnownBrowser(db: Kysely<Database>, secretHash: Buffer, usernameKey: string): Promise<boolean> {
  const { rows } = await sql`
    select 1 from known_browser b join "user" u on u.id = b.user_id
    where b.secret_hash = ${secretHash} and u.username_key = ${usernameKey} and b.expires_at > now()`.execute(db)
  return rows.length === 1
}
