import { type Kysely, sql } from 'kysely'

/** People: their accounts, the link that creates the first one, and browsers that they have signed in from. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table "user" (
      id uuid primary key,
      username text not null,
      username_key text not null unique,
      password_hash text,
      is_administrator boolean not null,
      created_at timestamptz not null,
      disabled_at timestamptz
    )`.execute(db)
  await sql`
    create table setup_link (
      secret_hash bytea primary key,
      expires_at timestamptz not null
    )`.execute(db)
  await sql`
    create table known_browser (
      secret_hash bytea primary key,
      user_id uuid not null references "user" on delete cascade,
      expires_at timestamptz not null
    )`.execute(db)
  await sql`create index known_browser_user_id on known_browser (user_id)`.execute(db)
  await sql`create index known_browser_expires on known_browser (expires_at)`.execute(db)
}
