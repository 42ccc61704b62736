import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, chown, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import t, { type Test } from 'tap'
import {
  type EmbeddedPostgres,
  EmbeddedPostgresError,
  joinOrStartEmbeddedPostgres,
  startEmbeddedPostgres,
} from '../../src/store/embedded-postgres.ts'

t.jobs = 3 // much of the time is waiting

const nobody = { uid: 65534, gid: 65534 }

async function emptyFolder(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-test-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

async function query(postgres: EmbeddedPostgres, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client(postgres.connection)
  client.on('error', () => undefined)
  try {
    await client.connect()
    return (await client.query(text)).rows
  } finally {
    await client.end()
  }
}

async function countRows(postgres: EmbeddedPostgres): Promise<number> {
  return Number((await query(postgres, 'select count(*) from number'))[0]?.count)
}

async function readPid(dataDirectory: string): Promise<number> {
  return Number((await readFile(join(dataDirectory, 'postgres/postmaster.pid'), 'utf8')).split('\n')[0])
}

async function until<T>(attempt: () => Promise<T | undefined | false>): Promise<T> {
  const tooLate = AbortSignal.timeout(10_000)
  for (;;) {
    const value = await attempt().catch((error) => {
      if (tooLate.aborted) throw error
    })
    if (value) return value
    if (tooLate.aborted) throw new Error('it did not happen within 10 seconds')
    await delay(5)
  }
}

/** Another Node.js process: `script` sees the module's functions, `query` and `dataDirectory`. */
function spawnNode(t: Test, dataDirectory: string, script: string, account?: { uid: number; gid: number }) {
  const module = new URL(`../../src/store/embedded-postgres.js`, import.meta.url)
  const source = `
    import pg from ${JSON.stringify(import.meta.resolve('pg'))}
    import { joinOrStartEmbeddedPostgres, startEmbeddedPostgres } from ${JSON.stringify(module)}
    const dataDirectory = ${JSON.stringify(dataDirectory)}
    ${query.toString()}
    ${script}`
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
    cwd: '/',
    stdio: ['ignore', 'pipe', 'pipe'],
    ...account,
  })
  t.teardown(() => child.kill('SIGKILL'))
  return child
}

async function readOutput(child: ChildProcess): Promise<string> {
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (text += chunk))
  await once(child, 'close')
  return text.trim()
}

t.test(
  'the first start creates the database, and the next one finds what was stored',
  { buffered: true },
  async (t) => {
    const dataDirectory = join(await emptyFolder(t), 'data')
    const first = await startEmbeddedPostgres({ dataDirectory })
    t.match(
      await query(
        first,
        `select current_database() as database, usesuper, current_setting('server_encoding') as encoding,
        current_setting('data_checksums') as checksums, current_setting('timezone') as timezone, datcollate
      from pg_user, pg_database where usename = current_user and datname = current_database()`,
      ),
      [{ database: 'postern', usesuper: false, encoding: 'UTF8', checksums: 'on', timezone: 'UTC', datcollate: 'C' }],
    )
    await query(first, 'create table number as select 1 as n')
    await first.stop()
    await first.stop()

    const second = await startEmbeddedPostgres({ dataDirectory, settings: { max_connections: '20' } })
    t.teardown(() => second.stop())
    t.equal(await countRows(second), 1)
    t.match(await query(second, 'show max_connections'), [{ max_connections: '20' }])
  },
)

t.test('nobody else can connect: there is no port, and the folder is closed', { buffered: true }, async (t) => {
  const dataDirectory = await emptyFolder(t)
  const postgres = await startEmbeddedPostgres({ dataDirectory, durable: false })
  t.teardown(() => postgres.stop())
  t.match(await query(postgres, 'show listen_addresses'), [{ listen_addresses: '' }])
  t.equal((await stat(join(dataDirectory, 'postgres'))).mode & 0o777, 0o700)
})

t.test('a second start is refused, and told who holds the data', { buffered: true }, async (t) => {
  const dataDirectory = await emptyFolder(t)
  const postgres = await startEmbeddedPostgres({ dataDirectory, durable: false })
  t.teardown(() => postgres.stop())
  const error: unknown = await startEmbeddedPostgres({ dataDirectory, durable: false }).catch((error) => error)
  t.type(error, EmbeddedPostgresError)
  t.match(error, { message: `${join(dataDirectory, 'postgres')} is in use by another process (pid ${process.pid})` })
  t.match(await query(postgres, 'select 1 as one'), [{ one: 1 }], 'the first still works')
})

t.test(
  'nothing acknowledged is lost when the process is killed, and the next start works at once',
  { buffered: true },
  async (t) => {
    const dataDirectory = await emptyFolder(t)
    const child = spawnNode(
      t,
      dataDirectory,
      `const postgres = await startEmbeddedPostgres({ dataDirectory })
    const client = new pg.Client(postgres.connection)
    await client.connect()
    await client.query('create table number (n int)')
    for (let n = 1; ; n += 1) {
      await client.query('insert into number values ($1)', [n])
      console.log(n)
    }`,
    )
    let acknowledged = 0
    const lines = createInterface(child.stdout as Readable).on('line', (line) => {
      acknowledged = Number(line)
      if (acknowledged === 200) child.kill('SIGKILL')
    })
    await once(lines, 'close')
    t.ok(acknowledged >= 200)

    const postgres = await startEmbeddedPostgres({ dataDirectory })
    t.teardown(() => postgres.stop())
    const stored = await countRows(postgres)
    t.ok(stored === acknowledged || stored === acknowledged + 1, `${acknowledged} acknowledged, ${stored} stored`)
  },
)

t.test('Postgres stops when the process exits without stopping it', { buffered: true }, async (t) => {
  const dataDirectory = await emptyFolder(t)
  const child = spawnNode(t, dataDirectory, 'await startEmbeddedPostgres({ dataDirectory }); process.exit(3)')
  await once(child, 'exit')
  t.equal(child.exitCode, 3)
  await until(async () => !(await readdir(join(dataDirectory, 'postgres'))).includes('postmaster.pid'))
})

t.test('a command joins a running server and leaves it running', { buffered: true }, async (t) => {
  const dataDirectory = await emptyFolder(t)
  const server = await startEmbeddedPostgres({ dataDirectory, durable: false })
  t.teardown(() => server.stop())
  const script = `const postgres = await joinOrStartEmbeddedPostgres({ dataDirectory })
    await query(postgres, 'create table number as select 1 as n')
    await postgres.stop()`
  t.equal(await readOutput(spawnNode(t, dataDirectory, script)), '')
  t.equal(await countRows(server), 1)
})

t.test('a command starts Postgres when nobody runs it, and stops it in the end', { buffered: true }, async (t) => {
  const dataDirectory = await emptyFolder(t)
  const command = await joinOrStartEmbeddedPostgres({ dataDirectory })
  await query(command, 'create table number as select 1 as n')
  await command.stop()
  const files = await readdir(join(dataDirectory, 'postgres'))
  t.notOk(files.includes('postmaster.pid'))
})

t.test('commands at the same time all work, whoever of them ends first', { buffered: true }, async (t) => {
  const dataDirectory = await emptyFolder(t)
  const results = await Promise.all(
    Array.from({ length: 6 }, async (_, n) => {
      const command = await joinOrStartEmbeddedPostgres({ dataDirectory, durable: false })
      await query(command, `create table number_${n} ()`)
      await query(command, `drop table number_${n}`)
      await command.stop()
      return n
    }),
  )
  t.same(results, [0, 1, 2, 3, 4, 5])
})

t.test('Postgres is started again, at the same address, when it is killed alone', { buffered: true }, async (t) => {
  const dataDirectory = await emptyFolder(t)
  const messages: string[] = []
  const postgres = await startEmbeddedPostgres({ dataDirectory, log: (message) => messages.push(message) })
  t.teardown(() => postgres.stop())
  await query(postgres, 'create table number as select 1 as n')
  const killed = await readPid(dataDirectory)
  process.kill(killed, 'SIGKILL')
  t.equal(await until(async () => (await readPid(dataDirectory)) !== killed && countRows(postgres)), 1)
  t.match(messages[0], "The embedded Postgres is started again, because it isn't running: SIGKILL")

  process.kill(await readPid(dataDirectory), 'SIGKILL')
  await postgres.stop()
  const next = await startEmbeddedPostgres({ dataDirectory })
  t.equal(await countRows(next), 1, 'stopping ends that')
  await next.stop()
})

t.test('a first start that was killed half-way leaves nothing that breaks the next', { buffered: true }, async (t) => {
  const dataDirectory = await emptyFolder(t)
  const child = spawnNode(t, dataDirectory, 'await startEmbeddedPostgres({ dataDirectory })')
  await until(async () => {
    const draft = (await readdir(dataDirectory)).find((name) => name.startsWith('postgres.init-'))
    return draft !== undefined && (await access(join(dataDirectory, draft, 'PG_VERSION')).then(() => true))
  })
  child.kill('SIGKILL')
  await once(child, 'exit')
  await mkdir(join(dataDirectory, 'postgres.init-earlier/base'), { recursive: true })
  const postgres = await startEmbeddedPostgres({ dataDirectory, durable: false })
  t.teardown(() => postgres.stop())
  t.match(await query(postgres, 'select 1 as one'), [{ one: 1 }])
  t.notOk((await readdir(dataDirectory)).includes('postgres.init-earlier'))
})

t.test('a path that is too long for a socket works, for commands too', { buffered: true }, async (t) => {
  const dataDirectory = join(await emptyFolder(t), 'a-folder-with-a-long-name/'.repeat(8), 'data')
  const server = await startEmbeddedPostgres({ dataDirectory, durable: false })
  t.teardown(() => server.stop())
  await query(server, 'create table number as select 1 as n')
  const command = await joinOrStartEmbeddedPostgres({ dataDirectory })
  t.equal(await countRows(command), 1)
  await command.stop()
  t.equal(await countRows(server), 1)
})

t.test(
  'a lock file left over from a crash is overcome, though another program has its pid now',
  { buffered: true },
  async (t) => {
    const dataDirectory = await emptyFolder(t)
    const lock = join(dataDirectory, 'postgres/postmaster.pid')
    const first = await startEmbeddedPostgres({ dataDirectory, durable: false })
    const text = await readFile(lock, 'utf8')
    await first.stop()
    const { uid, gid } = await stat(join(dataDirectory, 'postgres'))
    const other = spawn('sleep', ['60'], process.getuid?.() === 0 ? { uid, gid } : {})
    t.teardown(() => other.kill())
    await writeFile(lock, text.replace(/^\d+/, String(other.pid)))
    await chown(lock, uid, gid)

    const second = await startEmbeddedPostgres({ dataDirectory, durable: false })
    t.match(await query(second, 'select 1 as one'), [{ one: 1 }])
    await second.stop()
  },
)

t.test('data of another major version is refused', { buffered: true }, async (t) => {
  const dataDirectory = await emptyFolder(t)
  await mkdir(join(dataDirectory, 'postgres'))
  await writeFile(join(dataDirectory, 'postgres/PG_VERSION'), '15\n')
  const error: unknown = await startEmbeddedPostgres({ dataDirectory }).catch((error) => error)
  t.type(error, EmbeddedPostgresError)
  t.match(error, { message: /was made by Postgres 15 .* DATABASE_URL/ })
})

t.test('a refusal gives the reason that Postgres or the system gave', { buffered: true }, async (t) => {
  const dataDirectory = await emptyFolder(t)
  const settings = { shared_preload_libraries: 'missing' }
  const refused: unknown = await startEmbeddedPostgres({ dataDirectory, settings }).catch((error) => error)
  t.type(refused, EmbeddedPostgresError)
  t.match(refused, { message: /doesn't start: could not access file "missing": .* DATABASE_URL/ })

  const file = join(dataDirectory, 'file')
  await writeFile(file, '')
  const unusable: unknown = await startEmbeddedPostgres({ dataDirectory: file }).catch((error) => error)
  t.type(unusable, EmbeddedPostgresError)
  t.match(unusable, { message: /can't be used in .*\/file\/postgres .* DATABASE_URL/ })
})

t.test('it works for an ordinary user, and root can join', { buffered: true }, async (t) => {
  if (process.getuid?.() !== 0) return t.pass('all the other tests have just shown that')
  const canRun = await new Promise((resolve) => {
    const module = fileURLToPath(import.meta.url)
    const node = spawn(process.execPath, ['--check', module], { cwd: '/', stdio: 'ignore', ...nobody })
    node.on('error', () => resolve(false)).on('exit', (code) => resolve(code === 0))
  })
  if (!canRun) return t.pass("an ordinary user can't run this checkout")
  const dataDirectory = await emptyFolder(t)
  await chown(dataDirectory, nobody.uid, nobody.gid)
  const script = `const postgres = await startEmbeddedPostgres({ dataDirectory })
    await query(postgres, 'create table number as select 1 as n')
    console.log(process.getuid())
    setInterval(() => undefined, 1000)`
  const server = spawnNode(t, dataDirectory, script, nobody)
  server.stderr?.pipe(process.stderr)
  t.equal((await once(createInterface(server.stdout as Readable), 'line'))[0], String(nobody.uid))
  const command = await joinOrStartEmbeddedPostgres({ dataDirectory })
  t.equal(await countRows(command), 1)
  await command.stop()
  server.kill('SIGKILL')
  await until(async () => !(await readdir(join(dataDirectory, 'postgres'))).includes('postmaster.pid'))
})
