import { type Kysely, sql } from 'kysely'
import type { Database } from './database.ts'

/** Keeps the hash of a link's secret; links of other replicas stay valid. */
export async function insertSetupLink(db: Kysely<Database>, secretHash: Buffer, seconds: number): Promise<void> {
  await sql`
    insert into setup_link (secret_hash, expires_at)
    values (${secretHash}, now() + make_interval(secs => ${seconds}))`.execute(db)
}

/** Whether a link is still good: it is, while no user exists. */
export async function findSetupLink(db: Kysely<Database>, secretHash: Buffer): Promise<boolean> {
  const { rows } = await sql`
    select 1 from setup_link
    where secret_hash = ${secretHash} and expires_at > now() and not exists (select from "user")`.execute(db)
  return rows.length === 1
}

/** Forgets all links: the first user exists. */
export async function removeSetupLinks(db: Kysely<Database>): Promise<void> {
  await db.deleteFrom('setup_link').execute()
}
