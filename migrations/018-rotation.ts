import { type Kysely, sql } from 'kysely'

/** What a rotation changes in a family stands in no index any more: its new version then needs no entry in any (HOT). */
export async function up(db: Kysely<unknown>): Promise<void> {
  // removal_check_at: when housekeeping looks whether the family has expired; if not, it looks again when it will have
  await sql`alter table token_family add column removal_check_at timestamptz not null default now()`.execute(db)
  await sql`alter table token_family alter removal_check_at drop default`.execute(db)
  await sql`drop index token_family_expires`.execute(db)
  await sql`create index token_family_removal_check on token_family (removal_check_at)`.execute(db)
  // no foreign key: it is found by its family, and what is left of a removed one goes when the window has closed
  await sql`
    create table pair_salt (
      family_id uuid not null,
      generation bigint not null,
      salt bytea not null,
      ends_at timestamptz not null,
      primary key (family_id, generation)
    )`.execute(db)
  await sql`create index pair_salt_ends on pair_salt (ends_at)`.execute(db)
  // pairs that are sealed are lost: a superseded token that comes now ends its family
  await sql`alter table token_family drop column sealed_pair, drop column sealed_until`.execute(db)
  // room on each page for new versions of its rows
  await sql`alter table token_family set (fillfactor = 80)`.execute(db)
  await sql`alter table authorization_code set (fillfactor = 80)`.execute(db)
}
