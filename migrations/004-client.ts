import { type Kysely, sql } from 'kysely'

/** Clients: registered by themselves or added by an operator. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create table client (
      id text primary key,
      name text,
      secret_hash bytea,
      token_endpoint_auth_method text not null,
      redirect_uris text[] not null,
      grant_types text[] not null,
      default_scope text[],
      bound_scope text[],
      resource_ids uuid[], -- removed resources stay in it: a client that was bound to them never becomes unbound
      description jsonb not null,
      registration text not null check (registration in ('open', 'token', 'operator')),
      registration_source text,
      created_at timestamptz not null,
      unused_since timestamptz,
      disabled_at timestamptz
    )`.execute(db)
  // both serve removal of clients that registered themselves and have no grant; clients with grants aren't in them
  await sql`create index client_unused on client (unused_since) where unused_since is not null`.execute(db)
  await sql`
    create index client_unused_source on client (registration_source, unused_since)
    where unused_since is not null`.execute(db)
}
