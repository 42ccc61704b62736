import { type Kysely, sql } from 'kysely'

/** An access token says itself whose it is, and what a pair can be had from again stands once for many families. */
export async function up(db: Kysely<unknown>): Promise<void> {
  // a client with a metadata document that was removed, and comes again under its name, is another one
  await sql`alter table client add column incarnation uuid not null default gen_random_uuid()`.execute(db)
  await sql`alter table token_family add column client_incarnation uuid`.execute(db)
  await sql`
    update token_family f set client_incarnation = c.incarnation from client c where c.id = f.client_id`.execute(db)
  await sql`alter table token_family alter client_incarnation set not null`.execute(db)
  await sql`
    alter table access_token
      drop constraint access_token_check,
      add column user_id uuid,
      add column client_incarnation uuid`.execute(db)
  await sql`
    update access_token a set client_id = f.client_id, user_id = f.user_id
    from token_family f where f.id = a.family_id`.execute(db)
  await sql`
    update access_token a set client_incarnation = c.incarnation from client c where c.id = a.client_id`.execute(db)
  await sql`delete from access_token where client_incarnation is null`.execute(db) // family or client have gone
  await sql`
    alter table access_token
      alter client_id set not null,
      alter client_incarnation set not null,
      add check ((family_id is null) = (user_id is null))`.execute(db)
  // serves introspection, which asks of a family only whether it was ended: few are, so this stays in memory
  await sql`create index token_family_ended on token_family (id) where revoked_at is not null`.execute(db)
  // what is removed takes its families along (store/family-removal.ts): a foreign key would be looked up for each new one
  for (const column of ['client_id', 'user_id', 'resource_id']) {
    await sql`alter table token_family drop constraint ${sql.ref(`token_family_${column}_fkey`)}`.execute(db)
  }
  await sql`drop table pair_salt`.execute(db)
  // pair_ends_at: when the pair can't be had any more; its key is kept for longer. No index on either, so that a rotation
  // changes none. Pairs of before are lost, as in 018
  await sql`
    alter table token_family
      add column pair_key_id uuid,
      add column pair_ends_at timestamptz`.execute(db)
  await sql`
    create table pair_key (
      id uuid primary key,
      key bytea not null,
      ends_at timestamptz not null
    )`.execute(db)
  await sql`create index pair_key_ends on pair_key (ends_at)`.execute(db)
}
