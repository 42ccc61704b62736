import { type Kysely, sql } from 'kysely'
import type { Database, ResourceRow, ResourceScope } from './database.ts'

export interface NewResource {
  id: string
  uri: string
  name: string | null
  secretHash: Buffer
  scopes: ResourceScope[]
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
 *   none was requested: then the only one that the client may have, or the default
 * @param onlyId the one resource that the client is bound to, if it is
 */
export async function findResource(
  db: Kysely<Database>,
  candidates: string[] | undefined,
  onlyId?: string,
): Promise<ResourceRow | undefined> {
  let query = db.selectFrom('resource').selectAll()
  if (onlyId !== undefined) query = query.where('id', '=', onlyId)
  else if (candidates === undefined) query = query.where('is_default', '=', true)
  if (candidates !== undefined) {
    query = query
      .where('uri', '=', sql<string>`any(${candidates}::text[])`)
      .orderBy(sql`array_position(${candidates}::text[], uri)`)
  }
  return query.limit(1).executeTakeFirst()
}

export async function listResources(db: Kysely<Database>): Promise<ResourceRow[]> {
  return db.selectFrom('resource').selectAll().orderBy('uri').execute()
}

/** Replaces the secret: the old one is refused at once. */
export async function setResourceSecret(db: Kysely<Database>, id: string, secretHash: Buffer): Promise<void> {
  await db.updateTable('resource').set({ secret_hash: secretHash }).where('id', '=', id).execute()
}

/**
 * Removes a resource server with all grants for it. When it was the default, the one that was added first
 * of the others becomes the default.
 */
export async function removeResource(db: Kysely<Database>, id: string): Promise<void> {
  await db.transaction().execute(async (trx) => {
    await sql`lock table resource in share row exclusive mode`.execute(trx)
    await trx.deleteFrom('resource').where('id', '=', id).execute()
    await sql`
      update resource set is_default = true
      where id = (select id from resource order by created_at, id limit 1)
        and not exists (select from resource where is_default)`.execute(trx)
  })
}
