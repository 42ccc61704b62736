import { type Kysely, sql } from 'kysely'

/** Keys that access tokens and introspection answers are signed with: the newest whose time has come signs. */
export async function up(db: Kysely<unknown>): Promise<void> {
  // private_key: PKCS #8, sealed with POSTERN_ENCRYPTION_KEY and bound to kid where `sealed` says so; erased when
  // the key signs no longer. longest_token_seconds: the longest lifetime of a token that it has signed
  await sql`
    create table signing_key (
      kid text primary key,
      algorithm text not null check (algorithm in ('ES256', 'EdDSA', 'RS256')),
      public_jwk jsonb not null,
      private_key bytea,
      sealed boolean not null,
      longest_token_seconds integer not null default 0,
      created_at timestamptz not null,
      signs_from timestamptz not null
    )`.execute(db)
}
