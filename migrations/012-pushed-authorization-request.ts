import { type Kysely, sql } from 'kysely'

/** Authorization requests that clients push before they send the browser (RFC 9126). */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table pushed_authorization_request (
      request_hash bytea primary key,
      client_id text not null,
      parameters jsonb not null,
      created_at timestamptz not null,
      expires_at timestamptz not null
    )`.execute(db)
  await sql`create index pushed_authorization_request_expires on pushed_authorization_request (expires_at)`.execute(db)
  await sql`
    alter table client add require_pushed_authorization_requests boolean not null default false`.execute(db)
}
