import { type Kysely, sql } from 'kysely'

/** Device authorization (RFC 8628): what devices wait for, and who may decide. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table device_code (
      device_code_hash bytea primary key,
      user_code_hash bytea not null unique,
      client_id text not null,
      resource_id uuid not null,
      scope text[] not null,
      status text not null check (status in ('pending', 'approved', 'denied', 'redeemed')),
      opened_by bytea,
      user_id uuid,
      interval_seconds integer not null,
      polled_at timestamptz,
      created_at timestamptz not null,
      expires_at timestamptz not null
    )`.execute(db)
  await sql`create index device_code_expires on device_code (expires_at)`.execute(db)
}
