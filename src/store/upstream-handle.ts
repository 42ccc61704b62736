import { type Kysely, sql } from 'kysely'
import { isSameClient } from './client.ts'
import type { Database } from './database.ts'

/** Of one grant at one provider, a resource server keeps no more handles than this: the oldest go. */
const MOST_HANDLES = 10

/** What a handle stands for: what a resource server may do at a provider by a grant. */
export interface UpstreamHandle {
  familyId: string
  providerId: string
}

/**
 * Keeps a handle. The family is locked for as long, so that the number of its handles is right (primary key, index
 * on family_id).
 *
 * @returns `false` when the family has ended in between
 */
export async function insertUpstreamHandle(
  db: Kysely<Database>,
  handleHash: Buffer,
  { familyId, providerId }: UpstreamHandle,
): Promise<boolean> {
  return db.transaction().execute(async (trx) => {
    const family = await sql`
      select 1 from token_family
      where id = ${familyId} and revoked_at is null and expires_at > now()
      for no key update`.execute(trx)
    if (family.rows.length === 0) return false
    await sql`
      delete from upstream_handle where handle_hash in (
        select handle_hash from upstream_handle where family_id = ${familyId} and provider_id = ${providerId}
        order by created_at desc, handle_hash offset ${MOST_HANDLES - 1}
      )`.execute(trx)
    await sql`
      insert into upstream_handle (handle_hash, family_id, provider_id, created_at)
      values (${handleHash}, ${familyId}, ${providerId}, clock_timestamp())`.execute(trx)
    return true
  })
}

/**
 * Finds what a handle stands for (primary key). It holds for the resource server that got it alone, while its grant
 * lives, and neither user nor client is disabled.
 */
export async function findUpstreamHandle(
  db: Kysely<Database>,
  handleHash: Buffer,
  resourceId: string,
): Promise<(UpstreamHandle & { userId: string; clientId: string }) | undefined> {
  const { rows } = await sql<UpstreamHandle & { userId: string; clientId: string }>`
    select h.family_id as "familyId", h.provider_id as "providerId", f.user_id as "userId", f.client_id as "clientId"
    from upstream_handle h
    join token_family f on f.id = h.family_id and f.revoked_at is null and f.expires_at > now()
    join "user" u on u.id = f.user_id and u.disabled_at is null
    join client c on c.id = f.client_id and c.disabled_at is null and ${isSameClient(sql`f`)}
    where h.handle_hash = ${handleHash} and f.resource_id = ${resourceId}`.execute(db)
  return rows[0]
}
