import { type Kysely, sql } from 'kysely'

/** Clients that prove themselves with a key, clients that a metadata document describes, and proofs that count once. */
export async function up(db: Kysely<unknown>): Promise<void> {
  // a client has one of jwks and jwks_uri, or neither
  await sql`
    alter table client
      add jwks jsonb,
      add jwks_uri text,
      add token_endpoint_auth_signing_alg text,
      add check (jwks is null or jwks_uri is null)`.execute(db)
  // a row whose id is a URL is the cache of the document at that URL; it may choose from several methods; the digest
  // is of what a person judges at consent
  await sql`
    alter table client
      add token_endpoint_auth_methods text[],
      add document_expires_at timestamptz,
      add document_failed_at timestamptz,
      add document_digest bytea,
      drop constraint client_registration_check,
      add constraint client_registration_check
        check (registration in ('open', 'token', 'operator', 'document')),
      add check ((registration = 'document') = (document_expires_at is not null)),
      add check ((registration = 'document') = (document_digest is not null))`.execute(db)
  // what the document said when the person agreed; null for clients that have none
  await sql`alter table consent add document_digest bytea`.execute(db)
  // keys by the address that they were fetched from
  await sql`
    create table key_set (
      uri text primary key,
      keys jsonb,
      fetched_at timestamptz,
      failed_at timestamptz,
      expires_at timestamptz not null
    )`.execute(db)
  await sql`create index key_set_expires on key_set (expires_at)`.execute(db)
  await sql`
    create table used_jti (
      key bytea primary key,
      expires_at timestamptz not null
    )`.execute(db)
  await sql`create index used_jti_expires on used_jti (expires_at)`.execute(db)
}
