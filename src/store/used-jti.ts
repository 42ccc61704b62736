import { type Kysely, sql } from 'kysely'
import type { Database } from './database.ts'

/** A proof is judged first and claimed then: a request may take this long in between, and meet a removed row. */
const SLACK_SECONDS = 60

/**
 * Claims an identifier that may be used once: of any number of concurrent claims, on any replica, one wins
 * (primary key). A row that has ended but isn't removed yet counts as none.
 *
 * @param key hash of the identifier and of everything that it is unique within
 * @param seconds how long the proof that carries it could be accepted; it is remembered for a little longer
 * @returns whether it was unused
 */
export async function claimJti(db: Kysely<Database>, key: Buffer, seconds: number): Promise<boolean> {
  const { rows } = await sql`
    insert into used_jti as u (key, expires_at)
    values (${key}, now() + make_interval(secs => ${seconds + SLACK_SECONDS}))
    on conflict (key) do update set expires_at = excluded.expires_at where u.expires_at <= now()
    returning 1`.execute(db)
  return rows.length === 1
}
