import { type Kysely, sql } from 'kysely'
import type { UpstreamOption } from '../protocol/token-exchange.ts'
import type { Database } from './database.ts'

/** Names a permission: a resource server may act at a provider on behalf of people. */
export interface ResourceUpstreamKey {
  resourceId: string
  providerId: string
}

/**
 * Allows a resource server to act at a provider, or changes whether it may do so while the person is away (primary
 * key). Whatever becomes more than people have agreed to counts from now on.
 */
export async function allowResourceUpstream(
  db: Kysely<Database>,
  { resourceId, providerId }: ResourceUpstreamKey,
  offline: boolean,
): Promise<void> {
  await sql`
    insert into resource_upstream as u (resource_id, provider_id, offline, allowed_at)
    values (${resourceId}, ${providerId}, ${offline}, now())
    on conflict (resource_id, provider_id) do update set
      offline = excluded.offline,
      allowed_at = case when excluded.offline and not u.offline then excluded.allowed_at else u.allowed_at end`.execute(
    db,
  )
}

/** Takes a permission back: nothing is exchanged any more, and handles end. @returns whether there was one */
export async function disallowResourceUpstream(
  db: Kysely<Database>,
  { resourceId, providerId }: ResourceUpstreamKey,
): Promise<boolean> {
  const { rows } = await sql`
    with disallowed as (
      delete from resource_upstream where resource_id = ${resourceId} and provider_id = ${providerId} returning 1
    ), ended as (
      delete from upstream_handle h using token_family f
      where f.id = h.family_id and f.resource_id = ${resourceId} and h.provider_id = ${providerId}
    )
    select 1 from disallowed`.execute(db)
  return rows.length === 1
}

/** A provider at which a resource server may act. */
export interface ResourceUpstream {
  providerId: string
  providerName: string
  /** whether also while the person is away */
  offline: boolean
  allowedAt: Date
}

/** The providers at which a resource server may act, enabled or not: people agree to what may be enabled later (primary key). */
export async function listResourceUpstreams(db: Kysely<Database>, resourceId: string): Promise<ResourceUpstream[]> {
  const { rows } = await sql<ResourceUpstream>`
    select u.provider_id as "providerId", p.name as "providerName", u.offline, u.allowed_at as "allowedAt"
    from resource_upstream u join identity_provider p on p.id = u.provider_id
    where u.resource_id = ${resourceId}
    order by p.name, p.id`.execute(db)
  return rows
}

/**
 * What a resource server may do upstream by a grant: one for each provider at which it may act (primary keys).
 *
 * @returns nothing at all when the grant has ended, or its user or client is disabled
 */
export async function listUpstreamOptions(
  db: Kysely<Database>,
  { resourceId, familyId }: { resourceId: string; familyId: string },
): Promise<UpstreamOption[]> {
  const { rows } = await sql<UpstreamOption>`
    select p.id as "providerId", p.issuer, p.disabled_at is null and p.keeps_tokens as usable, u.offline,
      coalesce(f.approved_at > greatest(u.allowed_at, x.unlinked_at), false) as agreed,
      case when t.user_id is null then 'none' when t.ended_at is null then 'kept' else 'ended' end as tokens
    from resource_upstream u
    join identity_provider p on p.id = u.provider_id
    join token_family f on f.id = ${familyId} and f.resource_id = u.resource_id
      and f.revoked_at is null and f.expires_at > now()
    join "user" person on person.id = f.user_id and person.disabled_at is null
    join client c on c.id = f.client_id and c.disabled_at is null
    left join upstream_token t on t.user_id = f.user_id and t.provider_id = p.id
    left join upstream_unlinking x on x.user_id = f.user_id and x.provider_id = p.id
    where u.resource_id = ${resourceId}
    order by p.id`.execute(db)
  return rows
}
