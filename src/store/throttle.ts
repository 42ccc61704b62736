import { type Kysely, sql } from 'kysely'
import type { Database } from './database.ts'

/** How often something has been tried in the running window. */
export interface Attempts {
  key: Buffer
  attempts: number
  /** seconds until the window ends and counting starts anew */
  secondsLeft: number
}

/**
 * Counts one attempt for each key, before it is carried out, so that concurrent guesses all count. A window
 * starts with its first attempt.
 *
 * @param keys in ascending order, so that concurrent requests lock rows in the same order
 */
export async function countAttempts(db: Kysely<Database>, keys: Buffer[], windowSeconds: number): Promise<Attempts[]> {
  const { rows } = await sql<Attempts>`
    insert into throttle as t (key, attempts, window_ends_at)
    select key, 1, now() + make_interval(secs => ${windowSeconds}) from unnest(${keys}::bytea[]) as k(key)
    on conflict (key) do update set
      attempts = case when t.window_ends_at <= now() then 1 else t.attempts + 1 end,
      window_ends_at = case when t.window_ends_at <= now() then excluded.window_ends_at else t.window_ends_at end
    returning key, attempts, ceil(extract(epoch from window_ends_at - now()))::integer as "secondsLeft"`.execute(db)
  return rows
}

/** Starts counting anew: the attempts turned out to be the real person's. */
export async function forgetAttempts(db: Kysely<Database>, key: Buffer): Promise<void> {
  await db.deleteFrom('throttle').where('key', '=', key).execute()
}

/** Takes one attempt back, where the attempts of others count under the same key. */
export async function uncountAttempt(db: Kysely<Database>, key: Buffer): Promise<void> {
  await sql`update throttle set attempts = attempts - 1 where key = ${key} and attempts > 0`.execute(db)
}
