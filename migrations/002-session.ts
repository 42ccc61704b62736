import { type Kysely, sql } from 'kysely'

/** Sign-in sessions of browsers, and the counters that throttle guessing. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table session (
      id_hash bytea primary key,
      user_id uuid not null references "user" on delete cascade,
      created_at timestamptz not null,
      expires_at timestamptz not null
    )`.execute(db)
  await sql`create index session_user_id on session (user_id)`.execute(db)
  await sql`create index session_expires on session (expires_at)`.execute(db)
  await sql`
    create table throttle (
      key bytea primary key,
      attempts integer not null,
      window_ends_at timestamptz not null
    )`.execute(db)
  await sql`create index throttle_window_ends on throttle (window_ends_at)`.execute(db)
}
