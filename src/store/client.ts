import { type Kysely, type RawBuilder, sql } from 'kysely'
import type { ClientRow, Database } from './database.ts'

export interface NewClient {
  id: string
  name: string | null
  secretHash: Buffer | null
  tokenEndpointAuthMethod: string
  redirectUris: string[]
  grantTypes: string[]
  defaultScope: string[] | null
  /** the most that it may get; an operator's word */
  boundScope: string[] | null
  /** the only resources that it may ask for; `null` for any */
  resourceIds: string[] | null
  description: object
  registration: 'open' | 'token' | 'operator'
  /** the network that it registered from; `null` for an operator */
  registrationSource: string | null
}

/**
 * Adds a client.
 *
 * One that registered itself counts as unused until it reaches a grant. Of the unused ones from one network
 * the newest `unusedKept` stay: so their number is bounded, and whoever shares the network's address is
 * never locked out.
 *
 * Index client_unused_source serves the removal.
 */
export async function insertClient(db: Kysely<Database>, client: NewClient, unusedKept: number): Promise<Date> {
  const unusedSince = client.registration === 'operator' ? null : sql`now()`
  const { rows } = await sql<{ created_at: Date }>`
    with surplus as (
      delete from client where id = any(array(
        select id from client where id = any(array(
          select id from client
          where registration_source = ${client.registrationSource} and unused_since is not null
          order by unused_since desc offset ${unusedKept - 1} limit 10
        ))
        for update skip locked -- of these alone: below an offset, the rows that are passed over would be locked, too
      )) and ${hasNoFamily()}
    )
    insert into client (
      id, name, secret_hash, token_endpoint_auth_method, redirect_uris, grant_types, default_scope, bound_scope,
      resource_ids, description, registration, registration_source, created_at, unused_since
    ) values (
      ${client.id}, ${client.name}, ${client.secretHash}, ${client.tokenEndpointAuthMethod}, ${client.redirectUris},
      ${client.grantTypes}, ${client.defaultScope}, ${client.boundScope}, ${client.resourceIds},
      ${JSON.stringify(client.description)}::jsonb, ${client.registration}, ${client.registrationSource}, now(), ${unusedSince}
    ) returning created_at`.execute(db)
  return rows[0]?.created_at as Date
}

/** Of the row of `client`: nothing was granted to it. */
export function hasNoFamily(): RawBuilder<unknown> {
  return sql`not exists (select from token_family f where f.client_id = client.id)`
}

/**
 * A part of a statement that removes families: clients that registered themselves, and lose their last one, count
 * as unused again.
 *
 * @param removed says of a family `f` whether it goes
 */
export function markUnusedClients(removed: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`
    update client set unused_since = now()
    where id in (select f.client_id from token_family f where ${removed})
      and not exists (select from token_family f where f.client_id = client.id and not (${removed}))
      and registration <> 'operator' and unused_since is null`
}

/** Finds a client (primary key), disabled or not. */
export async function findClient(db: Kysely<Database>, id: string): Promise<ClientRow | undefined> {
  return db.selectFrom('client').selectAll().where('id', '=', id).executeTakeFirst()
}

/** Clients with the number of their living grants, the newest first. */
export async function listClients(db: Kysely<Database>): Promise<(ClientRow & { grants: number })[]> {
  const { rows } = await sql<ClientRow & { grants: number }>`
    select c.*, (
      select count(*)::integer from token_family f
      where f.client_id = c.id and f.revoked_at is null and f.expires_at > now()
    ) as grants
    from client c order by c.created_at desc, c.id`.execute(db)
  return rows
}

/** Replaces the secret: the old one is refused at once. */
export async function setClientSecret(db: Kysely<Database>, id: string, secretHash: Buffer): Promise<void> {
  await db.updateTable('client').set({ secret_hash: secretHash }).where('id', '=', id).execute()
}

/** Disables or enables a client: while disabled it gets nothing, and its tokens are inactive. */
export async function setClientDisabled(db: Kysely<Database>, id: string, disabled: boolean): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable('client')
    .set({ disabled_at: disabled ? sql`coalesce(disabled_at, now())` : null })
    .where('id', '=', id)
    .executeTakeFirst()
  return numUpdatedRows === 1n
}

/**
 * Removes a client with everything that was granted to it.
 *
 * @returns how many living grants ended with it; `undefined` when there is no such client
 */
export async function removeClient(db: Kysely<Database>, id: string): Promise<number | undefined> {
  const { rows } = await sql<{ endedGrants: number }>`
    with removed as (delete from client where id = ${id} returning id)
    select (
      select count(*)::integer from token_family f
      where f.client_id = removed.id and f.revoked_at is null and f.expires_at > now()
    ) as "endedGrants"
    from removed`.execute(db)
  return rows[0]?.endedGrants
}
