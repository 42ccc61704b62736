import { type Kysely, type RawBuilder, sql, type Transaction } from 'kysely'
import { KEY_SLACK_SECONDS, type SigningAlgorithm } from '../protocol/signing-key.ts'
import type { Database } from './database.ts'

/** A new signing key. */
export interface NewSigningKey {
  kid: string
  algorithm: SigningAlgorithm
  publicJwk: Record<string, unknown>
  /** PKCS #8, sealed or not */
  privateKey: Buffer
  sealed: boolean
}

/** A signing key that is published. */
export interface SigningKeyRow extends Omit<NewSigningKey, 'privateKey'> {
  /** `null`: erased, since it signs no longer */
  privateKey: Buffer | null
  /** seconds since 1970 */
  signsFromSeconds: number
  createdAt: Date
  signsFrom: Date
  /** when the next one takes over, if there is one */
  signsUntil: Date | null
  /** when it is removed, since the last token that it signed has expired */
  removedAt: Date | null
  /** the longest lifetime of a token that it has signed */
  longestTokenSeconds: number
  state: 'next' | 'signing' | 'retired'
}

/** Replicas that find a new key due at the same time make one. */
const SIGNING_KEY_LOCK = 7_079_838

/** Keys with the instants that follow from the order in which they begin to sign. */
const KEYS: RawBuilder<unknown> = sql`
  select *, signs_until + make_interval(secs => longest_token_seconds + ${sql.lit(KEY_SLACK_SECONDS)}) as removed_at
  from (
    select *, lead(signs_from) over (order by signs_from, created_at, kid) as signs_until from signing_key
  ) as ordered`

/** All keys, in the order in which they begin to sign. */
export async function listSigningKeys(db: Kysely<Database>): Promise<SigningKeyRow[]> {
  const { rows } = await sql<SigningKeyRow>`
    select kid, algorithm, public_jwk as "publicJwk", private_key as "privateKey", sealed,
      extract(epoch from signs_from)::float8 as "signsFromSeconds", created_at as "createdAt",
      signs_from as "signsFrom", signs_until as "signsUntil", removed_at as "removedAt",
      longest_token_seconds as "longestTokenSeconds",
      case when signs_from > now() then 'next' when signs_until <= now() then 'retired' else 'signing' end as state
    from (${KEYS}) as k
    order by signs_from, created_at, kid`.execute(db)
  return rows
}

/** Whether no key began to sign, or will begin, within the last seconds. */
export async function isSigningKeyDue(db: Kysely<Database>, seconds: number): Promise<boolean> {
  const { rows } = await sql<{ due: boolean }>`select ${due(seconds)} as due`.execute(db)
  return rows[0]?.due === true
}

/**
 * Adds a key if one is due (`isSigningKeyDue`), on whichever replica comes first. The first of all signs at
 * once, any other after `leadSeconds`.
 *
 * @returns whether it was added
 */
export async function insertDueSigningKey(
  db: Kysely<Database>,
  key: NewSigningKey,
  { dueSeconds, leadSeconds }: { dueSeconds: number; leadSeconds: number },
): Promise<boolean> {
  return locked(db, async (trx) => {
    if (!(await isSigningKeyDue(trx, dueSeconds))) return false
    const { rows } = await sql<{ any: boolean }>`select exists (select from signing_key) as any`.execute(trx)
    await insert(trx, key, rows[0]?.any === true ? leadSeconds : 0)
    return true
  })
}

/** Adds a key that signs after `leadSeconds`. */
export async function insertSigningKey(db: Kysely<Database>, key: NewSigningKey, leadSeconds: number): Promise<void> {
  await locked(db, (trx) => insert(trx, key, leadSeconds))
}

/**
 * Adds a key that signs at once, and withdraws all others.
 *
 * @param defaultSeconds as in `noteConfiguredLifetime`
 * @returns the others' kids
 */
export async function replaceSigningKeys(
  db: Kysely<Database>,
  key: NewSigningKey,
  defaultSeconds: number,
): Promise<string[]> {
  return locked(db, async (trx) => {
    const withdrawn = await trx.deleteFrom('signing_key').returning('kid').execute()
    await insert(trx, key, 0)
    await noteConfiguredLifetime(trx, defaultSeconds)
    return withdrawn.map(({ kid }) => kid)
  })
}

/** Replaces a private key by the same one, sealed, unless somebody has done so before. */
export async function sealSigningKey(
  db: Kysely<Database>,
  kid: string,
  { before, sealed }: { before: Buffer; sealed: Buffer },
): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable('signing_key')
    .set({ private_key: sealed, sealed: true })
    .where('kid', '=', kid) // primary key
    .where('private_key', '=', before)
    .executeTakeFirst()
  return numUpdatedRows === 1n
}

/**
 * Notes that a key signs tokens with this lifetime, before the first of them leaves: it stays published for as
 * long. A rare write, since lifetimes hardly change.
 *
 * @returns `false` when the key has been withdrawn
 */
export async function noteTokenLifetime(db: Kysely<Database>, kid: string, seconds: number): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable('signing_key')
    .set({ longest_token_seconds: sql<number>`greatest(longest_token_seconds, ${seconds})` })
    .where('kid', '=', kid) // primary key
    .executeTakeFirst()
  return numUpdatedRows === 1n
}

/**
 * Notes the longest lifetime that is configured anywhere, for all keys that sign or will: so that a token, which is
 * stored before it is signed, hardly ever waits for `noteTokenLifetime`. Where no JWTs are issued nothing is noted.
 * Belongs in the transaction that changes a lifetime, or adds a key that signs at once.
 *
 * @param defaultSeconds lifetime where neither client nor resource server has its own
 */
export async function noteConfiguredLifetime(db: Kysely<Database>, defaultSeconds: number): Promise<void> {
  await sql`
    with configured as (
      select greatest(
        ${defaultSeconds}::integer,
        (select max(access_token_seconds) from client),
        (select max(access_token_seconds) from resource)
      ) as seconds
      where exists (select from resource where token_format = 'jwt')
    )
    update signing_key set longest_token_seconds = configured.seconds
    from configured, (${KEYS}) as k
    where signing_key.kid = k.kid and (k.signs_until is null or k.signs_until > now())
      and signing_key.longest_token_seconds < configured.seconds`.execute(db)
}

/** Removes keys whose last token has expired. */
export function removeRetiredSigningKeys(limit: number): RawBuilder<unknown> {
  return sql`
    delete from signing_key where kid in (select kid from (${KEYS}) as k where removed_at < now() limit ${limit})
    returning 1`
}

/** Erases the private part of keys that sign no longer: nobody can steal what isn't there. */
export function erasePrivateKeys(limit: number): RawBuilder<unknown> {
  return sql`
    update signing_key set private_key = null
    where private_key is not null and kid in (
      select kid from (${KEYS}) as k
      where signs_until < now() - make_interval(secs => ${sql.lit(KEY_SLACK_SECONDS)}) and private_key is not null
      limit ${limit}
    )
    returning 1`
}

function due(seconds: number): RawBuilder<boolean> {
  return sql`not exists (
    select from signing_key where signs_from > now() - make_interval(secs => ${seconds})
  )`
}

async function insert(trx: Transaction<Database>, key: NewSigningKey, leadSeconds: number): Promise<void> {
  await trx
    .insertInto('signing_key')
    .values({
      kid: key.kid,
      algorithm: key.algorithm,
      public_jwk: sql`${JSON.stringify(key.publicJwk)}::jsonb`,
      private_key: key.privateKey,
      sealed: key.sealed,
      created_at: sql`now()`,
      signs_from: sql`now() + make_interval(secs => ${leadSeconds})`,
    })
    .execute()
}

/** Works in a transaction that one process at a time is in; its statements see what the one before did. */
function locked<T>(db: Kysely<Database>, work: (trx: Transaction<Database>) => Promise<T>): Promise<T> {
  return db.transaction().execute(async (trx) => {
    await sql`select pg_advisory_xact_lock(${sql.lit(SIGNING_KEY_LOCK)})`.execute(trx)
    return work(trx)
  })
}
