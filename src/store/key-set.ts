import { type Kysely, sql } from 'kysely'
import type { PublicJwk } from '../protocol/client-assertion.ts'
import type { Database } from './database.ts'

/** What is known of the keys at an address. */
export interface StoredKeySet {
  /** `null`: none, or too old */
  keys: PublicJwk[] | null
  /** within the pause */
  fetchedLately: boolean
  failedLately: boolean
}

/** Finds the keys that were fetched from an address (primary key). */
export async function findKeySet(
  db: Kysely<Database>,
  uri: string,
  pauseSeconds: number,
): Promise<StoredKeySet | undefined> {
  const lately = sql`now() - make_interval(secs => ${pauseSeconds})`
  const { rows } = await sql<StoredKeySet>`
    select case when expires_at > now() then keys end as keys,
      coalesce(fetched_at > ${lately}, false) as "fetchedLately",
      coalesce(failed_at > ${lately}, false) as "failedLately"
    from key_set where uri = ${uri}`.execute(db)
  return rows[0]
}

/** Keeps keys that were just fetched. */
export async function saveKeySet(
  db: Kysely<Database>,
  uri: string,
  keys: readonly PublicJwk[],
  seconds: number,
): Promise<void> {
  await sql`
    insert into key_set (uri, keys, fetched_at, failed_at, expires_at)
    values (${uri}, ${JSON.stringify(keys)}::jsonb, now(), null, now() + make_interval(secs => ${seconds}))
    on conflict (uri) do update set
      keys = excluded.keys, fetched_at = excluded.fetched_at, failed_at = null, expires_at = excluded.expires_at`.execute(
    db,
  )
}

/** Notes that an address gave no keys; those that it gave before are kept for as long as they would have been. */
export async function noteKeySetFailure(db: Kysely<Database>, uri: string, keptSeconds: number): Promise<void> {
  await sql`
    insert into key_set as s (uri, keys, fetched_at, failed_at, expires_at)
    values (${uri}, null, null, now(), now() + make_interval(secs => ${keptSeconds}))
    on conflict (uri) do update set
      failed_at = now(),
      keys = case when s.expires_at > now() then s.keys end,
      expires_at = greatest(s.expires_at, excluded.expires_at)`.execute(db)
}
