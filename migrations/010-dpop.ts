import { type Kysely, sql } from 'kysely'

/** Proof of possession (RFC 9449): clients that must use it, families bound later, and secrets that replicas share. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`alter table client add dpop_bound_access_tokens boolean not null default false`.execute(db)
  // the first generation whose refresh token is bound to dpop_jkt: a family may be bound at a later refresh
  await sql`alter table token_family add dpop_generation bigint not null default 0`.execute(db)
  await sql`
    create table server_secret (
      name text primary key,
      value bytea not null
    )`.execute(db)
}
