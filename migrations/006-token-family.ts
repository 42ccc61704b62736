import { type Kysely, sql } from 'kysely'

/** Token families and access tokens (ARCHITECTURE.md, "Token families"). */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table token_family (
      id uuid primary key,
      client_id text not null references client on delete cascade,
      user_id uuid not null references "user" on delete cascade,
      resource_id uuid not null references resource on delete cascade,
      scope text[] not null,
      lineage_hash bytea unique,
      generation bigint not null,
      secret_hash bytea,
      superseded_secret_hashes bytea[] not null,
      superseded_at timestamptz[] not null,
      access_token_hash bytea not null,
      sealed_pair bytea,
      sealed_until timestamptz,
      created_at timestamptz not null,
      last_used_at timestamptz not null,
      expires_at timestamptz not null,
      ends_at timestamptz not null,
      revoked_at timestamptz,
      revoked_reason text
    )`.execute(db)
  await sql`create index token_family_client_id on token_family (client_id)`.execute(db)
  await sql`create index token_family_user_id on token_family (user_id)`.execute(db)
  await sql`create index token_family_resource_id on token_family (resource_id)`.execute(db)
  await sql`create index token_family_expires on token_family (expires_at)`.execute(db)
  await sql`create index token_family_revoked on token_family (revoked_at) where revoked_at is not null`.execute(db)
  await sql`create index token_family_sealed on token_family (sealed_until) where sealed_until is not null`.execute(db)
  // no foreign key: introspection joins the family, and what is left of a removed family goes when it expires
  await sql`
    create table access_token (
      token_hash bytea primary key,
      family_id uuid not null,
      resource_id uuid not null,
      scope text not null,
      issued_at timestamptz not null,
      expires_at timestamptz not null
    )`.execute(db)
  await sql`create index access_token_expires on access_token (expires_at)`.execute(db)
}
