import { type Kysely, type RawBuilder, sql } from 'kysely'
import { batched } from './batch.ts'
import type { Database, Lifetimes, ResourceRow, ResourceScope, TokenFormat } from './database.ts'
import { removeFamiliesOf } from './family-removal.ts'
import { noteConfiguredLifetime } from './signing-key.ts'
import { inOrder, statement } from './statement.ts'

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

type EntryRow = ResourceRow & { entry: number }

const BOUND = sql`p.only_ids is null or r.id = any(string_to_array(p.only_ids, ' ')::uuid[])`

/** By URI (unique index). */
const selectRequested = statement<EntryRow, 'uris' | 'onlyIds'>(
  ({ uris, onlyIds }) => sql`
    select p.entry::integer - 1 as entry, r.*
    from unnest(${uris}::text[], ${onlyIds}::text[]) with ordinality as p (uris, only_ids, entry), lateral (
      select * from resource r where r.uri = any(string_to_array(p.uris, ' ')) and (${BOUND})
      order by array_position(string_to_array(p.uris, ' '), r.uri) limit 1
    ) as r`,
)

/**
 * A condition of statements that issue: the resource `r` is the one that the request means, if it names one.
 *
 * @param candidates forms of what was requested, the best first, separated by spaces; `null` when none was
 */
export function isRequested(candidates: RawBuilder<unknown>): RawBuilder<unknown> {
  const forms = sql`string_to_array(${candidates}, ' ')`
  return sql`(${candidates} is null or r.uri = (
    select uri from resource where uri = any(${forms}) order by array_position(${forms}, uri) limit 1
  ))`
}

/** By id (primary key). */
const selectBound = statement<EntryRow, 'onlyIds'>(
  ({ onlyIds }) => sql`
    select p.entry::integer - 1 as entry, r.*
    from unnest(${onlyIds}::text[]) with ordinality as p (only_ids, entry), lateral (
      select * from resource r where r.id = any(string_to_array(p.only_ids, ' ')::uuid[])
      order by r.is_default desc, array_position(string_to_array(p.only_ids, ' ')::uuid[], r.id) limit 1
    ) as r`,
)

const findRequested = batched(async (db, references: { candidates: string[]; onlyIds: string[] | undefined }[]) => {
  const uris = references.map(({ candidates }) => candidates.join(' '))
  const onlyIds = references.map((one) => one.onlyIds?.join(' ') ?? null)
  return inOrder(references, await selectRequested(db, { uris, onlyIds }))
})

const findBound = batched(async (db, references: string[][]) => {
  return inOrder(references, await selectBound(db, { onlyIds: references.map((ids) => ids.join(' ')) }))
})

/** The default (partial index): one row for all who ask, which is not for changing. */
const findDefault = batched(async (db, references: undefined[]) => {
  const { rows } = await sql<ResourceRow>`select * from resource where is_default`.execute(db)
  return references.map(() => rows[0])
})

/**
 * Finds the resource that a request means, in one statement with others.
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
  if (candidates !== undefined) return findRequested(db, { candidates, onlyIds })
  return onlyIds === undefined ? findDefault(db, undefined) : findBound(db, onlyIds)
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
      ), ${removeFamiliesOf('resource_id')}`.execute(trx)
    await sql`
      update resource set is_default = true
      where id = (select id from resource order by created_at, id limit 1)
        and not exists (select from resource where is_default)`.execute(trx)
    return rows[0]?.endedGrants
  })
}
