import { type Kysely, sql } from 'kysely'
import type { Database } from './database.ts'
import { statement } from './statement.ts'

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

const selectConsent = statement<{ scope: string[] }, keyof ConsentKey>(
  (v) => sql`
    select scope from consent c
    where c.user_id = ${v.userId} and c.client_id = ${v.clientId} and c.resource_id = ${v.resourceId}
      and c.redirect_uri = ${v.redirectUri} and c.document_digest is not distinct from ${v.documentDigest}
      and not exists (
        select from resource_upstream u
        left join upstream_unlinking x on x.user_id = c.user_id and x.provider_id = u.provider_id
        where u.resource_id = c.resource_id and greatest(u.allowed_at, x.unlinked_at) >= c.granted_at
      )`,
)

/**
 * The scopes that the user has consented to for this client and resource (primary key). A consent from before the
 * resource server was allowed to act upstream, or to do more there, or from before the person unlinked an account
 * there, doesn't count: the person is asked again.
 */
export async function findConsent(db: Kysely<Database>, key: ConsentKey): Promise<string[] | undefined> {
  return (await selectConsent(db, key))[0]?.scope
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
