import { type Kysely, sql } from 'kysely'

/** Sign-in with identity providers, and what resource servers may do there on a person's behalf. */
export async function up(db: Kysely<unknown>): Promise<void> {
  // client_secret: sealed, bound to the id; sealed_with: fingerprint of the key, to find what another one sealed
  await sql`
    create table identity_provider (
      id text primary key,
      name text not null,
      kind text not null check (kind in ('openid_connect', 'github')),
      issuer text not null,
      internal_origin text,
      client_id text not null,
      client_secret bytea,
      sealed_with bytea,
      scope text[] not null,
      authorization_parameters jsonb not null,
      username_claim text not null,
      trusts_email boolean not null,
      creates_users boolean not null,
      allowed_domains text[],
      required_claims jsonb not null,
      keeps_tokens boolean not null,
      created_at timestamptz not null,
      disabled_at timestamptz
    )`.execute(db)
  // a person has one account at a provider, so that it is clear whose token is meant
  await sql`
    create table upstream_account (
      provider_id text not null references identity_provider on delete cascade,
      subject text not null,
      user_id uuid not null references "user" on delete cascade,
      display_name text not null,
      linked_at timestamptz not null,
      primary key (provider_id, subject),
      unique (user_id, provider_id)
    )`.execute(db)
  // what the person agreed to before unlinking an account is not for the next one of this provider
  await sql`
    create table upstream_unlinking (
      user_id uuid not null references "user" on delete cascade,
      provider_id text not null references identity_provider on delete cascade,
      unlinked_at timestamptz not null,
      primary key (user_id, provider_id)
    )`.execute(db)
  // nothing secret: verifier and nonce come from the state and the browser's cookie
  await sql`
    create table upstream_sign_in (
      state_hash bytea primary key,
      browser_hash bytea not null,
      provider_id text not null references identity_provider on delete cascade,
      link_user_id uuid references "user" on delete cascade,
      continue_query text not null,
      expires_at timestamptz not null
    )`.execute(db)
  await sql`create index upstream_sign_in_expires on upstream_sign_in (expires_at)`.execute(db)
  await sql`create index upstream_sign_in_provider on upstream_sign_in (provider_id)`.execute(db)
  // access_token and refresh_token: sealed, bound to provider and user. ended_at: the provider refused to refresh.
  // refresh_lease: who refreshes right now, so that one does
  await sql`
    create table upstream_token (
      user_id uuid not null,
      provider_id text not null,
      access_token bytea not null,
      refresh_token bytea,
      sealed_with bytea not null,
      scope text,
      expires_at timestamptz,
      updated_at timestamptz not null,
      ended_at timestamptz,
      refresh_lease uuid,
      refresh_lease_until timestamptz,
      primary key (user_id, provider_id),
      foreign key (user_id, provider_id) references upstream_account (user_id, provider_id) on delete cascade
    )`.execute(db)
  await sql`create index upstream_token_sealed_with on upstream_token (sealed_with)`.execute(db)
  // allowed_at: what people agreed to before doesn't count
  await sql`
    create table resource_upstream (
      resource_id uuid not null references resource on delete cascade,
      provider_id text not null references identity_provider on delete cascade,
      offline boolean not null,
      allowed_at timestamptz not null,
      primary key (resource_id, provider_id)
    )`.execute(db)
  await sql`
    create table upstream_handle (
      handle_hash bytea primary key,
      family_id uuid not null references token_family on delete cascade,
      provider_id text not null references identity_provider on delete cascade,
      created_at timestamptz not null
    )`.execute(db)
  await sql`create index upstream_handle_family_id on upstream_handle (family_id)`.execute(db)
}
