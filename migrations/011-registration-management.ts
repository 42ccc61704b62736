import { type Kysely, sql } from 'kysely'

/** Clients that registered themselves may manage their registration (RFC 7592). */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`alter table client add registration_token_hash bytea`.execute(db)
}
