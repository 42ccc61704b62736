import { type RawBuilder, sql } from 'kysely'

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

/**
 * The end of a statement that removes a user, a client or a resource, and calls it `removed`: its families go with it, in
 * the order in which rotations change them (index on the column). Other clients that lose their last family by that count
 * as unused again.
 *
 * No foreign key does that, since it would be looked up for each new family. A family that starts at that moment may be
 * left over until it expires: none of its tokens is active, since introspection and rotation find their client, user
 * and resource.
 *
 * @returns one row: `endedGrants`, how many of them were living
 */
export function removeFamiliesOf(column: 'user_id' | 'client_id' | 'resource_id'): RawBuilder<unknown> {
  const theirs = sql`f.${sql.ref(column)} in (select id from removed)`
  return sql`
    unused as (${column === 'client_id' ? sql`select from removed` : sql`${markUnusedClients(theirs)} returning 1`}), held as (
      select f.id from token_family f join removed on f.${sql.ref(column)} = removed.id
      where (select count(*) from unused) >= 0 -- first the clients: who removes one locks it before its families
      order by f.lineage_hash for update of f
    ), gone as (
      delete from token_family where id = any(array(select id from held))
      returning revoked_at is null and expires_at > now() as living
    )
    select (select count(*)::integer from gone where living) as "endedGrants" from removed`
}

/** Removes families that have ended, at most `limit` in the order of a column with an index; others' locks are skipped. */
export function removeFamilies(ended: RawBuilder<unknown>, order: string, limit: number): RawBuilder<unknown> {
  return sql`
    with gone as (
      delete from token_family where id = any(array(
        select id from token_family where ${ended} order by ${sql.ref(order)} limit ${limit} for update skip locked
      ))
      returning id
    ), unused as (${markUnusedClients(sql`f.id in (select id from gone)`)})
    select 1 from gone`
}
