import { type Kysely, sql } from 'kysely'

/** An operator's word about pushed requests, beside what clients register about themselves (RFC 9126 §6). */
export async function up(db: Kysely<unknown>): Promise<void> {
  // null: as its metadata says
  await sql`alter table client add must_push_requests boolean`.execute(db)
  // until now only operators could ask for it
  await sql`update client set must_push_requests = true where require_pushed_authorization_requests`.execute(db)
}
