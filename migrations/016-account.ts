import { type Kysely, sql } from 'kysely'

/** What people see of their sessions and grants: each by itself, when and from where. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    alter table session
      add column id uuid not null unique default gen_random_uuid(),
      add column user_agent text,
      add column address text,
      add column provider_id text references identity_provider on delete cascade`.execute(db)
  // approved_at, approved_from: when the person agreed, and the address of the browser
  await sql`alter table authorization_code add column approved_from text`.execute(db)
  await sql`alter table device_code add column approved_at timestamptz, add column approved_from text`.execute(db)
  await sql`alter table token_family add column approved_at timestamptz, add column approved_from text`.execute(db)
}
