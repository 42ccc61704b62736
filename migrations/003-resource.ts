import { type Kysely, sql } from 'kysely'

/** Resource servers: what tokens are for, and who may introspect them. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table resource (
      id uuid primary key,
      uri text not null unique,
      name text,
      secret_hash bytea not null,
      scopes jsonb not null,
      is_default boolean not null,
      created_at timestamptz not null
    )`.execute(db)
  await sql`create unique index resource_default on resource (is_default) where is_default`.execute(db)
}
