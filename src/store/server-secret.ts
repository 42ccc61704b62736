import { type Kysely, sql } from 'kysely'
import type { Database } from './database.ts'

/** A secret of the server that all replicas share, and the database's time. */
export interface ServerSecret {
  value: Buffer
  now: Date
}

/** Finds a secret (primary key). */
export async function findServerSecret(db: Kysely<Database>, name: string): Promise<ServerSecret | undefined> {
  const { rows } = await sql<ServerSecret>`select value, now() as now from server_secret where name = ${name}`.execute(
    db,
  )
  return rows[0]
}

/** Keeps a secret, unless another replica was first. */
export async function insertServerSecret(db: Kysely<Database>, name: string, value: Buffer): Promise<void> {
  await sql`insert into server_secret (name, value) values (${name}, ${value}) on conflict do nothing`.execute(db)
}
