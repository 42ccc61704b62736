import { type Kysely, sql } from 'kysely'
import type { Database } from '../../src/store/database.ts'

/** How many statements wait for a lock. Not inside a transaction: there the first answer stays. */
export async function waiting(db: Kysely<Database>): Promise<number> {
  const { rows } = await sql<{ n: number }>`
    select count(*)::integer as n from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock'`.execute(db)
  return rows[0]?.n ?? 0
}
