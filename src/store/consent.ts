import { type Kysely, sql } from 'kysely'
import type { Database } from './database.ts'

/** What a consent is about. */
export interface ConsentKey {
  userId: string
  clientId: string
  resourceId: string
  /** the registered one: a consent is for this place, and for no other of the client */
  redirectUri: string
  /** of what the client's metadata document says about it; a consent to something else doesn't count */
  documentDigest: Buffer | null
}

/**
 * The scopes that the user has consented to for this client and resource (primary key). A consent from before the
 * resource server was allowed to act upstream, or to do more there, or from before the person unlinked an account
 * there, doesn't count: the person is asked again.
 */
export async function findConsent(db: Kysely<Database>, key: ConsentKey): Promise<string[] | undefined> {
  const row = await db
    .selectFrom('consent')
    .select('scope')
    .where('user_id', '=', key.userId)
    .where('client_id', '=', key.clientId)
    .where('resource_id', '=', key.resourceId)
    .where('redirect_uri', '=', key.redirectUri)
    .where('document_digest', 'is not distinct from', key.documentDigest)
    .where(
      sql<boolean>`not exists (
        select from resource_upstream u
        left join upstream_unlinking x on x.user_id = consent.user_id and x.provider_id = u.provider_id
        where u.resource_id = consent.resource_id and greatest(u.allowed_at, x.unlinked_at) >= consent.granted_at
      )`,
    )
    .executeTakeFirst()
  return row?.scope
}

/** Adds scopes to what is consented to; what was there stays, unless it was for a client that said something else. */
export async function addConsent(db: Kysely<Database>, key: ConsentKey, scope: string[]): Promise<void> {
  await sql`
    insert into consent as c (user_id, client_id, resource_id, redirect_uri, scope, granted_at, document_digest)
    values (${key.userId}, ${key.clientId}, ${key.resourceId}, ${key.redirectUri}, ${scope}, now(), ${key.documentDigest})
    on conflict (user_id, client_id, resource_id, redirect_uri) do update set
      scope = case when c.document_digest is not distinct from excluded.document_digest
        then array(select distinct unnest(c.scope || excluded.scope)) else excluded.scope end,
      document_digest = excluded.document_digest,
      granted_at = now()`.execute(db)
}
