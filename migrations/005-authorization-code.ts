import { type Kysely, sql } from 'kysely'

/** Authorization codes, kept for a day so that a replay is recognised, and what people have consented to. */
export async function up(db: Kysely<unknown>): Promise<void> {
  // no foreign keys: redemption joins client, user and resource anyway
  await sql`
    create table authorization_code (
      code_hash bytea primary key,
      client_id text not null,
      user_id uuid not null,
      resource_id uuid not null,
      redirect_uri text not null,
      code_challenge text not null,
      scope text[] not null,
      created_at timestamptz not null,
      expires_at timestamptz not null,
      redeemed_at timestamptz,
      family_id uuid
    )`.execute(db)
  await sql`create index authorization_code_created on authorization_code (created_at)`.execute(db)
  await sql`
    create table consent (
      user_id uuid not null references "user" on delete cascade,
      client_id text not null references client on delete cascade,
      resource_id uuid not null references resource on delete cascade,
      redirect_uri text not null, -- where the answer went is what the person could judge of the client
      scope text[] not null,
      granted_at timestamptz not null,
      primary key (user_id, client_id, resource_id, redirect_uri)
    )`.execute(db)
  await sql`create index consent_client_id on consent (client_id)`.execute(db)
}
