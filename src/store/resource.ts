import { type Kysely, sql } from 'kysely'
import { markUnusedClients } from './client.ts'
import type { Database, Lifetimes, ResourceRow, ResourceScope, TokenFormat } from './database.ts'
import { noteConfiguredLifetime } from './signing-key.ts'

export interface NewResource {
  id: string
  uri: string
  name: string | null
  secretHash: Buffer
  scopes: ResourceScope[]
  /** absent: opaque */
  tokenFormat?: TokenFormat
  /** the first one is the default in any case */
  isDefault: boolean
}

/** Adds a resource server. @returns `false` when the URI was added before */
export async function insertResource(db: Kysely<Database>, resource: NewResource): Promise<boolean> {
  return db.transaction().execute(async (trx) => {
    await sql`lock table resource in share row exclusive mode`.execute(trx) // one default, whoever adds at the same time
    const known = await trx.selectFrom('resource').select('id').where('uri', '=', resource.uri).executeTakeFirst()
    if (known !== undefined) return false
    if (resource.isDefault)
      await trx.updateTable('resource').set({ is_default: false }).where('is_default', '=', true).execute()
    const first = (await trx.selectFrom('resource').select('id').limit(1).executeTakeFirst()) === undefined
    await trx
      .insertInto('resource')
      .values({
        id: resource.id,
        uri: resource.uri,
        name: resource.name,
        secret_hash: resource.secretHash,
        scopes: sql`${JSON.stringify(resource.scopes)}::jsonb`,
        is_default: first || resource.isDefault,
        token_format: resource.tokenFormat ?? 'opaque',
        created_at: sql`now()`,
      })
      .execute()
    return true
  })
}

/**
 * Finds the resource that a request means.
 *
 * @param candidates forms of the requested URI, the best first (`resourceCandidates`); `undefined` means that
 *   none was requested: then the default, or, if the client is bound to others, the first of them
 * @param onlyIds the resources that the client is bound to, if it is
 */
export async function findResource(
  db: Kysely<Database>,
  candidates: string[] | undefined,
  onlyIds?: string[],
): Promise<ResourceRow | undefined> {
  let query = db.selectFrom('resource').selectAll()
  if (onlyIds !== undefined) query = query.where('id', '=', sql<string>`any(${onlyIds}::uuid[])`)
  if (candidates !== undefined) {
    query = query
      .where('uri', '=', sql<string>`any(${candidates}::text[])`)
      .orderBy(sql`array_position(${candidates}::text[], uri)`)
  } else if (onlyIds !== undefined) {
    query = query.orderBy('is_default', 'desc').orderBy(sql`array_position(${onlyIds}::uuid[], id)`)
  } else {
    query = query.where('is_default', '=', true)
  }
  return query.limit(1).executeTakeFirst()
}

/** Finds a resource server (primary key). */
export async function findResourceById(db: Kysely<Database>, id: string): Promise<ResourceRow | undefined> {
  return db.selectFrom('resource').selectAll().where('id', '=', id).executeTakeFirst()
}

export async function listResources(db: Kysely<Database>): Promise<ResourceRow[]> {
  return db.selectFrom('resource').selectAll().orderBy('uri').execute()
}

/** What an operator may change about a resource server; what is left out stays. */
export type ResourceChanges = Partial<Lifetimes & Pick<ResourceRow, 'name' | 'scopes' | 'token_format'>>

/**
 * Changes a resource server. What was granted stays as it is.
 *
 * @param defaultSeconds lifetime of access tokens where neither client nor resource server has its own
 */
export async function updateResource(
  db: Kysely<Database>,
  id: string,
  { scopes, ...changes }: ResourceChanges,
  isDefault: boolean,
  defaultSeconds: number,
): Promise<void> {
  await db.transaction().execute(async (trx) => {
    if (isDefault) {
      await sql`lock table resource in share row exclusive mode`.execute(trx)
      await trx.updateTable('resource').set({ is_default: false }).where('is_default', '=', true).execute()
    }
    const set = {
      ...changes,
      ...(isDefault ? { is_default: true } : {}),
      ...(scopes === undefined ? {} : { scopes: sql<ResourceScope[]>`${JSON.stringify(scopes)}::jsonb` }),
    }
    if (Object.keys(set).length > 0) await trx.updateTable('resource').set(set).where('id', '=', id).execute()
    await noteConfiguredLifetime(trx, defaultSeconds)
  })
}

/** Replaces the secret: the old one is refused at once. */
export async function setResourceSecret(db: Kysely<Database>, id: string, secretHash: Buffer): Promise<void> {
  await db.updateTable('resource').set({ secret_hash: secretHash }).where('id', '=', id).execute()
}

/**
 * Removes a resource server with all grants for it. When it was the default, the one that was added first
 * of the others becomes the default. A client that was bound to it keeps its other bounds, or gets nothing.
 *
 * @returns how many living grants ended with it; `undefined` when there is no such resource server
 */
export async function removeResource(db: Kysely<Database>, id: string): Promise<number | undefined> {
  return db.transaction().execute(async (trx) => {
    await sql`lock table resource in share row exclusive mode`.execute(trx)
    const { rows } = await sql<{ endedGrants: number }>`
      with removed as (
        delete from resource where id = ${id} returning id
      ), unused as (${markUnusedClients(sql`f.resource_id in (select id from removed)`)})
      select (
        select count(*)::integer from token_family f
        where f.resource_id = removed.id and f.revoked_at is null and f.expires_at > now()
      ) as "endedGrants"
      from removed`.execute(trx)
    await sql`
      update resource set is_default = true
      where id = (select id from resource order by created_at, id limit 1)
        and not exists (select from resource where is_default)`.execute(trx)
    return rows[0]?.endedGrants
  })
}
