import { type Kysely, sql } from 'kysely'
import { isSameClient } from './client.ts'
import type { ClientRow, Database } from './database.ts'

/** A living grant: what one person allowed one installation of a client. */
export interface LivingGrant {
  id: string
  username: string
  clientId: string
  clientName: string | null
  clientRegistration: ClientRow['registration']
  redirectUris: string[]
  resource: string
  resourceName: string | null
  scope: string[]
  createdAt: Date
  /** address of the browser in which the person agreed; `null` for grants of earlier versions */
  approvedFrom: string | null
  lastUsedAt: Date
  expiresAt: Date
  /** providers where the resource server may act for the person, by name */
  upstream: string[]
}

/** Living grants, the newest first; narrowed to a user or a client when given (an index serves each). */
export async function listGrants(
  db: Kysely<Database>,
  filter: { userId?: string | undefined; clientId?: string | undefined },
): Promise<LivingGrant[]> {
  const { rows } = await sql<LivingGrant>`
    select f.id, u.username, f.client_id as "clientId", c.name as "clientName",
      c.registration as "clientRegistration", c.redirect_uris as "redirectUris",
      r.uri as resource, r.name as "resourceName", f.scope,
      f.created_at as "createdAt", f.approved_from as "approvedFrom", f.last_used_at as "lastUsedAt",
      f.expires_at as "expiresAt",
      array(
        select p.name from resource_upstream a
        join identity_provider p on p.id = a.provider_id and p.disabled_at is null and p.keeps_tokens
        join upstream_account l on l.provider_id = p.id and l.user_id = f.user_id
        left join upstream_unlinking x on x.provider_id = p.id and x.user_id = f.user_id
        where a.resource_id = f.resource_id and greatest(a.allowed_at, x.unlinked_at) < f.approved_at order by p.name
      ) as upstream
    from token_family f
    join "user" u on u.id = f.user_id
    join client c on c.id = f.client_id and ${isSameClient(sql`f`)}
    join resource r on r.id = f.resource_id
    where f.revoked_at is null and f.expires_at > now()
      ${filter.userId === undefined ? sql`` : sql`and f.user_id = ${filter.userId}`}
      ${filter.clientId === undefined ? sql`` : sql`and f.client_id = ${filter.clientId}`}
    order by f.created_at desc, f.id`.execute(db)
  return rows
}
