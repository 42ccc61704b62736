import { type Kysely, sql } from 'kysely'

/** A row of a client or a resource server has a version of its own: what is decided by one read earlier can name it. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    create function renew_version() returns trigger language plpgsql as $$
      begin
        new.version := gen_random_uuid();
        return new;
      end
    $$`.execute(db)
  for (const table of [sql.table('client'), sql.table('resource')]) {
    await sql`alter table ${table} add column version uuid not null default gen_random_uuid()`.execute(db)
    await sql`
      create trigger renew_version before update on ${table} for each row execute function renew_version()`.execute(db)
  }
}
