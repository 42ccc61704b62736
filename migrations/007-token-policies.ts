import { type Kysely, sql } from 'kysely'

/** Tokens without a person, bound tokens, and lifetimes of their own for resource servers and clients. */
export async function up(db: Kysely<unknown>): Promise<void> {
  // lifetimes: the client's, else the resource's, else the configuration's
  for (const table of ['resource', 'client']) {
    await sql`
      alter table ${sql.table(table)}
        add access_token_seconds integer,
        add refresh_token_seconds integer,
        add family_seconds integer,
        add refresh_grace_seconds integer`.execute(db)
  }
  await sql`
    alter table resource
      add token_format text not null default 'opaque' check (token_format in ('opaque', 'jwt'))`.execute(db)
  // a token of the client credentials grant has a client and no family; dpop_jkt is the thumbprint it is bound to
  await sql`
    alter table access_token
      alter family_id drop not null,
      add client_id text,
      add dpop_jkt text,
      add check ((family_id is null) <> (client_id is null))`.execute(db)
  await sql`alter table token_family add dpop_jkt text`.execute(db)
  await sql`alter table authorization_code add dpop_jkt text`.execute(db)
}
