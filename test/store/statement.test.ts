import { randomBytes, randomUUID } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import t from 'tap'
import { findClient } from '../../src/store/client.ts'
import { openDatabase } from '../../src/store/connection.ts'
import { type Database, isDatabaseUnavailable, pingDatabase } from '../../src/store/database.ts'
import { statement } from '../../src/store/statement.ts'
import { createTestDatabase } from '../support/database.ts'
import { startDatabaseProxy } from '../support/database-proxy.ts'

const { db, url } = await createTestDatabase(t)
const alone = openDatabase({ connectionString: url }, { poolSize: 1, onError: () => {} })
t.teardown(() => alone.destroy())

/** How many statements the connection has prepared whose text holds this. */
async function prepared(db: Kysely<Database>, part: string): Promise<number> {
  const { rows } = await sql<{ n: number }>`
    select count(*)::integer as n from pg_prepared_statements
    where strpos(statement, ${part}) > 0 and strpos(statement, 'pg_prepared_statements') = 0`.execute(db)
  return rows[0]?.n ?? 0
}

t.test('a statement is put together once, and planned once by each connection', async (t) => {
  let built = 0
  const add = statement<{ sum: number; twice: number }, 'one' | 'other'>(({ one, other }) => {
    built += 1
    return sql`select ${one}::integer + ${other}::integer as sum, ${one}::integer * 2 as twice /* added */`
  })
  t.same(await add(alone, { one: 1, other: 2 }), [{ sum: 3, twice: 2 }])
  t.same(await add(alone, { other: 20, one: 10 }), [{ sum: 30, twice: 20 }])
  t.equal(built, 1)
  t.equal(await prepared(alone, '/* added */'), 1)
})

t.test('columns of hashes arrive as they were, with nothing in places or everywhere', async (t) => {
  const echo = statement<
    { hash: Buffer | null; other: Buffer | null; text: string | null },
    'hashes' | 'others' | 'texts'
  >(
    (v) =>
      sql`select * from unnest(${v.hashes}::bytea[], ${v.others}::bytea[], ${v.texts}::text[]) as e (hash, other, text)`,
  )
  const columns = {
    hashes: [randomBytes(32), null, Buffer.alloc(0), randomBytes(1000)],
    others: [null, null, null, null],
    texts: ['a', null, '', '\\x00'],
  }
  t.same(
    await echo(alone, columns),
    columns.hashes.map((hash, index) => ({ hash, other: null, text: columns.texts[index] })),
  )
  t.same(await echo(alone, { hashes: [], others: [], texts: [] }), [])
})

t.test('a migration that adds a column while the server runs breaks no statement', async (t) => {
  await sql`
    insert into client (id, name, token_endpoint_auth_method, redirect_uris, grant_types, description, registration,
      created_at)
    values ('kept', 'Kept', 'none', '{}', '{}', '{}', 'operator', now())`.execute(db)
  t.equal((await findClient(alone, 'kept'))?.name, 'Kept')
  await sql`alter table client add column added_later text default 'x'`.execute(db)
  t.match(await findClient(alone, 'kept'), { name: 'Kept', added_later: 'x' })
  t.match(await findClient(alone, 'kept'), { name: 'Kept' })
  t.equal(await findClient(alone, randomUUID()), undefined)
})

t.test('inside a transaction, what a migration spoils counts as passing, and is there again afterwards', async (t) => {
  t.equal((await findClient(alone, 'kept'))?.name, 'Kept')
  await sql`alter table client add column added_last text`.execute(db)
  const error = await alone
    .transaction()
    .execute((trx) => findClient(trx, 'kept'))
    .catch((reason: unknown) => reason)
  t.match(error, { routine: 'RevalidateCachedQuery' })
  t.ok(isDatabaseUnavailable(error))
  t.equal((await alone.transaction().execute((trx) => findClient(trx, 'kept')))?.name, 'Kept')
})

t.test('a connection that breaks as soon as it is made takes no place in the pool', async (t) => {
  let broken = 0
  const connectionString = await startDatabaseProxy(t, url, (chunk, database, client) => {
    if (broken === 0 && chunk.includes('plan_cache_mode')) {
      broken += 1
      client.destroy()
    } else database.write(chunk)
  })
  const one = openDatabase({ connectionString }, { poolSize: 1, onError: () => {} })
  t.teardown(() => one.destroy())
  await t.rejects(pingDatabase(one))
  t.equal(broken, 1)
  await pingDatabase(one)
})

t.test('connections of the server plan once, by indexes alone, and wait for no lock for long', async (t) => {
  const names = ['plan_cache_mode', 'enable_seqscan', 'enable_hashjoin', 'enable_mergejoin', 'jit', 'lock_timeout']
  const shown = async (db: Kysely<Database>) =>
    Promise.all(
      names.map(async (name) => (await sql<Record<string, string>>`show ${sql.ref(name)}`.execute(db)).rows[0]?.[name]),
    )
  t.same(await shown(alone), ['force_generic_plan', 'off', 'off', 'off', 'off', '5s'])
  const patient = openDatabase({ connectionString: url }, { poolSize: 1, onError: () => {}, patient: true })
  t.teardown(() => patient.destroy())
  t.match(
    (await shown(patient)).slice(0, 4),
    ['auto', 'on', 'on', 'on'],
    'migrations and commands are planned for what they meet',
  )
})
