import { type Kysely, type RawBuilder, sql } from 'kysely'
import { LONGEST_ACCESS_TOKEN_SECONDS } from '../protocol/introspection.ts'
import type { Database } from './database.ts'
import { hasNoFamily, removeFamilies } from './family-removal.ts'
import { erasePrivateKeys, removeRetiredSigningKeys } from './signing-key.ts'

/** What decides when rows end, as far as they don't say it themselves. */
export interface Retention {
  unusedClientSeconds: number
}

/** Codes are kept this long, so that a late replay is still recognised; expired families, for operators to find. */
const KEPT_SECONDS = 86_400

/**
 * Families that were ended are kept for longer than a token can live, since introspection asks whether its family was; and
 * for some time more, since one may have been issued while that was waited for.
 */
const ENDED_KEPT_SECONDS = LONGEST_ACCESS_TOKEN_SECONDS + 3600

/** Device codes are kept this long beyond their end: a device that polls seldom learns that (RFC 8628 §3.5). */
const DEVICE_CODE_KEPT_SECONDS = 600

/**
 * What housekeeping does, each in one statement that takes at most `limit` rows in the order of an index, and
 * skips rows that others hold (an array, since it is looked up in the primary key however large the table is). The
 * name is the table's, or says what else is done to its rows.
 */
const REMOVALS: { name: string; remove: (retention: Retention, limit: number) => RawBuilder<unknown> }[] = [
  {
    name: 'access_token',
    remove: (_, limit) => removal('access_token', 'token_hash', sql`expires_at < now()`, 'expires_at', limit),
  },
  {
    name: 'authorization_code',
    remove: (_, limit) =>
      removal('authorization_code', 'code_hash', sql`created_at < ${ago(KEPT_SECONDS)}`, 'created_at', limit),
  },
  {
    name: 'session',
    remove: (_, limit) => removal('session', 'id_hash', sql`expires_at < now()`, 'expires_at', limit),
  },
  {
    name: 'known_browser',
    remove: (_, limit) => removal('known_browser', 'secret_hash', sql`expires_at < now()`, 'expires_at', limit),
  },
  {
    name: 'pushed_authorization_request',
    remove: (_, limit) =>
      removal('pushed_authorization_request', 'request_hash', sql`expires_at < now()`, 'expires_at', limit),
  },
  {
    name: 'device_code',
    remove: (_, limit) => {
      const ended = sql`expires_at < ${ago(DEVICE_CODE_KEPT_SECONDS)}`
      return removal('device_code', 'device_code_hash', ended, 'expires_at', limit)
    },
  },
  {
    name: 'upstream_sign_in',
    remove: (_, limit) => removal('upstream_sign_in', 'state_hash', sql`expires_at < now()`, 'expires_at', limit),
  },
  {
    name: 'throttle',
    remove: (_, limit) => removal('throttle', 'key', sql`window_ends_at < now()`, 'window_ends_at', limit),
  },
  {
    name: 'key_set',
    remove: (_, limit) => removal('key_set', 'uri', sql`expires_at < now()`, 'expires_at', limit),
  },
  {
    name: 'used_jti',
    remove: (_, limit) => removal('used_jti', 'key', sql`expires_at < now()`, 'expires_at', limit),
  },
  {
    name: 'setup_link',
    remove: (_, limit) => removal('setup_link', 'secret_hash', sql`expires_at < now()`, 'expires_at', limit),
  },
  {
    name: 'client',
    remove: ({ unusedClientSeconds }, limit) => {
      // a document's client could come back at any time, so one that is disabled stays
      const goes = sql`(registration <> 'document' or disabled_at is null) and ${hasNoFamily()}`
      const ended = sql`unused_since < ${ago(unusedClientSeconds)} and ${goes}`
      return removal('client', 'id', ended, 'unused_since', limit)
    },
  },
  {
    // those that were used since then are looked at again when they will have expired
    name: 'removal_check',
    remove: (_, limit) => sql`
      update token_family set removal_check_at = expires_at
      where id = any(array(
        select id from token_family
        where removal_check_at < ${ago(KEPT_SECONDS)} and expires_at >= ${ago(KEPT_SECONDS)}
        order by removal_check_at limit ${limit} for update skip locked
      ))
      returning 1`,
  },
  {
    name: 'token_family',
    remove: (_, limit) => {
      const ended = sql`removal_check_at < ${ago(KEPT_SECONDS)} and expires_at < ${ago(KEPT_SECONDS)}`
      return removeFamilies(ended, 'removal_check_at', limit)
    },
  },
  {
    name: 'token_family',
    remove: (_, limit) => removeFamilies(sql`revoked_at < ${ago(ENDED_KEPT_SECONDS)}`, 'revoked_at', limit),
  },
  { name: 'signing_key', remove: (_, limit) => removeRetiredSigningKeys(limit) },
  { name: 'private_key', remove: (_, limit) => erasePrivateKeys(limit) },
  {
    name: 'pair_key',
    remove: (_, limit) => removal('pair_key', 'id', sql`ends_at < now()`, 'ends_at', limit),
  },
]

/** Only one replica cleans up at a time; the number is arbitrary, and used for nothing else. */
const HOUSEKEEPING_LOCK = 7_079_837

/**
 * Removes what has ended, one batch of each kind, each in a transaction of its own.
 *
 * @returns how many rows went, or were changed, by name, and whether a batch was full, so that there may be more; `undefined`
 *   when another replica is at it
 * @throws the first failure, after every kind has had its turn
 */
export async function removeEndedRows(
  db: Kysely<Database>,
  retention: Retention,
  limit: number,
): Promise<{ removed: Record<string, number>; more: boolean } | undefined> {
  const removed: Record<string, number> = {}
  const failures: unknown[] = []
  let more = false
  for (const { name, remove } of REMOVALS) {
    const count = await removeBatch(db, remove(retention, limit)).catch((error: unknown) => {
      failures.push(error) // of one kind: the others must not wait for it
      return 0
    })
    if (count === undefined) return Object.keys(removed).length === 0 ? undefined : { removed, more: false }
    if (count > 0) removed[name] = (removed[name] ?? 0) + count
    more ||= count === limit
  }
  if (failures.length > 0) throw failures[0]
  return { removed, more }
}

/** @returns `undefined` when another replica cleans up */
async function removeBatch(db: Kysely<Database>, removal: RawBuilder<unknown>): Promise<number | undefined> {
  return db.transaction().execute(async (trx) => {
    const lock = sql<{ mine: boolean }>`select pg_try_advisory_xact_lock(${HOUSEKEEPING_LOCK}) as mine`
    if (!(await lock.execute(trx)).rows[0]?.mine) return undefined
    return (await removal.execute(trx)).rows.length
  })
}

function removal(
  table: string,
  key: string,
  ended: RawBuilder<unknown>,
  order: string,
  limit: number,
): RawBuilder<unknown> {
  return sql`
    delete from ${sql.table(table)} where ${sql.ref(key)} = any(array(
      select ${sql.ref(key)} from ${sql.table(table)} where ${ended}
      order by ${sql.ref(order)} limit ${limit} for update skip locked
    ))
    returning 1`
}

function ago(seconds: number): RawBuilder<Date> {
  return sql<Date>`now() - make_interval(secs => ${seconds})`
}
