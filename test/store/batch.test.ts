import { mock } from 'node:test'
import { setImmediate as nextTurn, setTimeout } from 'node:timers/promises'
import { type Kysely, sql } from 'kysely'
import t, { type Test } from 'tap'
import { batched } from '../../src/store/batch.ts'
import { openDatabase } from '../../src/store/connection.ts'
import { type Database, isDatabaseUnavailable } from '../../src/store/database.ts'
import { createTestDatabase } from '../support/database.ts'
import { startDatabaseProxy } from '../support/database-proxy.ts'
import { until } from '../support/until.ts'

const { db, url } = await createTestDatabase(t)
await sql`create table counter (name text primary key, n integer not null check (n < 100))`.execute(db)
await sql`insert into counter select 'c' || i, 0 from generate_series(1, 300) as i`.execute(db)

/** Counts up by name, and notes which entries shared a statement. */
function counter() {
  const statements: string[][] = []
  const countUp = batched(
    async (db: Kysely<Database>, entries: { name: string; by: number }[]) => {
      statements.push(entries.map(({ name }) => name))
      const { rows } = await sql<{ name: string; n: number }>`
        update counter c set n = c.n + e.by
        from unnest(${entries.map(({ name }) => name)}::text[], ${entries.map(({ by }) => by)}::integer[]) as e (name, by)
        where c.name = e.name returning c.name, c.n`.execute(db)
      return entries.map(({ name }) => rows.find((row) => row.name === name)?.n)
    },
    ({ name }) => name,
  )
  return { countUp, statements }
}

/** Statements that end when they are told to. */
function gate() {
  const statements: number[][] = []
  const release: (() => void)[] = []
  const pass = batched(async (_: Kysely<Database>, entries: number[]) => {
    statements.push(entries)
    await new Promise<void>((resolve) => release.push(resolve))
    return entries
  })
  return { pass, statements, release }
}

/** The database behind a proxy, so that every round trip takes five milliseconds longer. */
async function openFarDatabase(t: Test): Promise<Kysely<Database>> {
  const connectionString = await startDatabaseProxy(t, url, async (chunk, database) => {
    await setTimeout(5)
    database.write(chunk)
  })
  const far = openDatabase({ connectionString }, { poolSize: 2, onError: () => {} })
  t.teardown(() => far.destroy())
  return far
}

async function reset(): Promise<void> {
  await sql`update counter set n = 0`.execute(db)
}

t.test('entries of one turn share a statement, and each has its own result', async (t) => {
  await reset()
  const { countUp, statements } = counter()
  const results = await Promise.all([1, 2, 3].map((by) => countUp(db, { name: `c${by}`, by })))
  t.same(results, [1, 2, 3])
  t.same(statements, [['c1', 'c2', 'c3']])
  t.equal(await countUp(db, { name: 'c1', by: 1 }), 2)
  t.same(statements.at(-1), ['c1'], 'one goes alone')
})

t.test('entries with the same key take turns, in the order in which they came', async (t) => {
  await reset()
  const { countUp, statements } = counter()
  const results = await Promise.all(['c1', 'c2', 'c1', 'c3', 'c1'].map((name) => countUp(db, { name, by: 1 })))
  t.same([...results].sort(), [1, 1, 1, 2, 3])
  t.same(statements, [['c1', 'c2', 'c3'], ['c1'], ['c1']])
})

t.test('an entry that fails spoils no other', async (t) => {
  await reset()
  const { countUp, statements } = counter()
  const [good, bad, other] = await Promise.allSettled([
    countUp(db, { name: 'c1', by: 1 }),
    countUp(db, { name: 'c2', by: 100 }),
    countUp(db, { name: 'c3', by: 1 }),
  ])
  t.match(good, { status: 'fulfilled', value: 1 })
  t.match(bad, { status: 'rejected', reason: /check constraint/ })
  t.match(other, { status: 'fulfilled', value: 1 })
  t.same(statements, [['c1', 'c2', 'c3'], ['c1'], ['c2'], ['c3']], 'each by itself after the first')
})

t.test('after a lost connection nothing is done a second time', async (t) => {
  await reset()
  const { countUp, statements } = counter()
  const alone = openDatabase({ connectionString: url }, { poolSize: 1, onError: () => {} })
  t.teardown(() => alone.destroy())
  const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(alone)
  const held = db.transaction().execute(async (trx) => {
    await sql`select from counter where name = 'c2' for update`.execute(trx)
    const waiting = Promise.allSettled(['c1', 'c2'].map((name) => countUp(alone, { name, by: 1 })))
    for (let blocked = false; !blocked; ) {
      const found = await sql<{ n: number }>`
        select count(*)::integer as n from pg_locks where pid = ${rows[0]?.pid} and not granted`.execute(db)
      blocked = (found.rows[0]?.n ?? 0) > 0
    }
    await sql`select pg_terminate_backend(${rows[0]?.pid}::integer)`.execute(db)
    return waiting
  })
  t.same(
    (await held).map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  t.same(statements, [['c1', 'c2']])
})

t.test('a row that somebody holds holds up no other entry', async (t) => {
  await reset()
  const { countUp, statements } = counter()
  const alone = openDatabase({ connectionString: url }, { poolSize: 1, onError: () => {} })
  t.teardown(() => alone.destroy())
  await sql`set lock_timeout = '50ms'`.execute(alone) // five seconds otherwise
  const outcomes = await db.transaction().execute(async (trx) => {
    await sql`select from counter where name = 'c2' for update`.execute(trx)
    return Promise.allSettled(['c1', 'c2', 'c3'].map((name) => countUp(alone, { name, by: 1 })))
  })
  t.match(outcomes, [{ value: 1 }, { reason: { code: '55P03' } }, { value: 1 }])
  t.same(statements, [['c1', 'c2', 'c3'], ['c1'], ['c2'], ['c3']])
})

t.test('after a failure few entries go at a time', async (t) => {
  let underWay = 0
  let most = 0
  const fail = batched(async (db: Kysely<Database>, entries: number[]) => {
    if (entries.length > 1) await sql`select 1 / 0`.execute(db)
    underWay += 1
    most = Math.max(most, underWay)
    await nextTurn()
    underWay -= 1
    return entries
  })
  const entries = Array.from({ length: 20 }, (_, i) => i)
  t.same(await Promise.all(entries.map((entry) => fail(db, entry))), entries)
  t.equal(most, 4)
})

t.test('an entry that can not be sent in time is refused, and nothing of it is done', async (t) => {
  const { pass, statements, release } = gate()
  const hanging = []
  for (const entry of [1, 2, 3, 4, 5, 6, 7, 8]) {
    hanging.push(pass(db, entry))
    while (statements.length < entry) await nextTurn()
  }
  const startedAt = performance.now()
  const error = await pass(db, 9).catch((reason: unknown) => reason)
  t.match(error, { name: 'DatabaseBusy' })
  t.ok(isDatabaseUnavailable(error))
  t.ok(performance.now() - startedAt > 4900)
  for (const one of release) one()
  t.same(await Promise.all(hanging), [1, 2, 3, 4, 5, 6, 7, 8])
  t.equal(statements.length, 8)
  const next = pass(db, 10)
  while (statements.length < 9) await nextTurn()
  release.at(-1)?.()
  t.equal(await next, 10)
})

t.test('at most a hundred entries share a statement', async (t) => {
  await reset()
  const { countUp, statements } = counter()
  const results = await Promise.all(Array.from({ length: 250 }, (_, i) => countUp(db, { name: `c${i + 1}`, by: 1 })))
  t.ok(results.every((n) => n === 1))
  t.same(
    statements.map(({ length }) => length),
    [100, 100, 50],
  )
})

t.test('while a statement is under way, what comes shares the next', async (t) => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
  t.teardown(() => mock.timers.reset())
  const { pass, statements, release } = gate()
  const results = []
  for (const entry of [1, 2, 3]) {
    results.push(pass(db, entry))
    await nextTurn()
    await nextTurn()
  }
  t.same(statements, [[1]])
  release[0]?.()
  await nextTurn()
  await nextTurn()
  t.same(statements, [[1], [2, 3]])
  release[1]?.()
  t.same(await Promise.all(results), [1, 2, 3])
})

t.test('what came while a statement was under way is sent before that one is answered', async (t) => {
  const { pass, statements, release } = gate()
  const first = pass(db, 1).then(() => [...statements])
  await nextTurn()
  const second = pass(db, 2)
  release[0]?.()
  t.same(await first, [[1], [2]])
  release[1]?.()
  t.equal(await second, 2)
})

t.test('a statement that takes long holds up no other, until eight are under way', async (t) => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
  t.teardown(() => mock.timers.reset())
  const { pass, statements, release } = gate()
  const results = [pass(db, 1)]
  await nextTurn()
  for (const entry of [2, 3, 4, 5, 6, 7, 8]) {
    results.push(pass(db, entry))
    await nextTurn()
    await nextTurn()
    t.equal(statements.length, entry - 1)
    mock.timers.tick(10)
    await nextTurn()
    await nextTurn()
    t.equal(statements.length, entry)
  }
  results.push(pass(db, 9), pass(db, 10))
  mock.timers.tick(60_000)
  await nextTurn()
  await nextTurn()
  t.equal(statements.length, 8)
  release[2]?.()
  await nextTurn()
  await nextTurn()
  t.same(statements.at(-1), [9, 10])
  for (const one of release) one()
  t.same(await Promise.all(results), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
})

t.test('where the database is far away, nothing waits for a statement that is under way', async (t) => {
  const far = await openFarDatabase(t)
  const { countUp } = counter()
  const measured = performance.now() + 2500
  while (performance.now() < measured) await countUp(far, { name: 'c1', by: 0 })
  const { pass, statements, release } = gate()
  const results = []
  for (const entry of [1, 2, 3]) {
    results.push(pass(far, entry))
    await nextTurn()
    await nextTurn()
  }
  t.same(statements, [[1], [2], [3]])
  for (const one of release) one()
  t.same(await Promise.all(results), [1, 2, 3])
})

t.test('statements that take long nearby make the database no farther', async (t) => {
  const slow = batched(async (db: Kysely<Database>, entries: number[]) => {
    await sql`select pg_sleep(0.003)`.execute(db)
    return entries
  })
  /** Whether a second entry goes beside a statement that is under way. */
  const seemsFar = async () => {
    const { pass, statements, release } = gate()
    const results = []
    for (const entry of [1, 2]) {
      results.push(pass(db, entry))
      await nextTurn()
      await nextTurn()
    }
    const begun = statements.length
    release[0]?.()
    await until(() => statements.length === 2)
    release[1]?.()
    t.same(await Promise.all(results), [1, 2])
    return begun === 2
  }
  // a busy machine may be far for a while; if these statements counted, it would be so for ever
  const begunAt = performance.now()
  do {
    const measured = performance.now() + 2500
    while (performance.now() < measured) await slow(db, 0)
  } while ((await seemsFar()) && performance.now() < begunAt + 30_000)
  t.equal(await seemsFar(), false)
})

t.test('inside a transaction an entry is a statement of its own, and is undone with it', async (t) => {
  await reset()
  const { countUp, statements } = counter()
  const outside = countUp(db, { name: 'c2', by: 1 })
  const undone = db.transaction().execute(async (trx) => {
    t.equal(await countUp(trx, { name: 'c1', by: 1 }), 1)
    throw new Error('undone')
  })
  await t.rejects(undone, /undone/)
  t.equal(await outside, 1)
  t.same([...statements].sort(), [['c1'], ['c2']])
  t.equal(await countUp(db, { name: 'c1', by: 1 }), 1)
})
