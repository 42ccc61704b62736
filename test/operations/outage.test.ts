import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { createFetchJson } from '../../src/clients/fetch-json.ts'
import { readConfig } from '../../src/config.ts'
import type { Context } from '../../src/context.ts'
import { createSigningKeys } from '../../src/keys/signing-keys.ts'
import { createLog } from '../../src/operations/log.ts'
import { createServer } from '../../src/server.ts'
import { openDatabase } from '../../src/store/connection.ts'
import { startEmbeddedPostgres } from '../../src/store/embedded-postgres.ts'
import { migrateToLatest } from '../../src/store/migrate.ts'
import { createPasswordHasher } from '../../src/users/password.ts'
import { basic } from '../support/credentials.ts'
import { authorizeUrl, obtainTokens, pkce } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { addClient, addResource, addUser, freePort, PASSWORD, RESOURCE, type TestPostern } from '../support/postern.ts'
import { startReplica } from '../support/replica.ts'
import { until } from '../support/until.ts'

t.jobs = 3 // much of the time is waiting

/** Postern on a Postgres of its own, that can be taken away. */
interface Fragile {
  postern: TestPostern
  stopDatabase(): Promise<void>
  startDatabase(): Promise<void>
  /** the process ids of Postgres, its first process first */
  pids(): Promise<number[]>
}

async function startFragile(t: Test, { durable = false } = {}): Promise<Fragile> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-outage-'))
  const start = () => startEmbeddedPostgres({ dataDirectory: folder, durable })
  let postgres = await start()
  const db = openDatabase(postgres.connection, { poolSize: 10, onError: () => {} })
  const port = await freePort()
  const config = readConfig({ PORT: String(port) })
  const log = createLog(process.env.TEST_LOG_LEVEL ?? 'silent')
  const context: Context = {
    config,
    db,
    fetchJson: createFetchJson(false),
    keys: createSigningKeys({ config, db, log }),
    log,
    passwords: createPasswordHasher(),
  }
  const server = await createServer(context)
  await server.listen({ host: '127.0.0.1', port })
  t.teardown(async () => {
    await server.close()
    await db.destroy()
    await postgres.stop()
    await rm(folder, { recursive: true, force: true })
  })
  await migrateToLatest(db)
  const { host, user, database } = postgres.connection
  const databaseUrl = `postgres://${user}@localhost/${database}?host=${encodeURIComponent(host)}`
  const postern = { issuer: config.issuer, context, server, db, databaseUrl, resourceServer: { id: '', secret: '' } }
  await addUser(postern, 'alice')
  postern.resourceServer = await addResource(postern, RESOURCE, [{ name: 'read', description: 'Read' }])
  return {
    postern,
    stopDatabase: () => postgres.stop(),
    async startDatabase() {
      postgres = await start()
    },
    async pids() {
      const first = Number((await readFile(join(folder, 'postgres', 'postmaster.pid'), 'utf8')).split('\n')[0])
      const { rows } = await sql<{ pid: number }>`select pid from pg_stat_activity`.execute(db)
      return [first, ...rows.map(({ pid }) => pid)]
    },
  }
}

/** What was answered, by what was asked. */
class Load {
  readonly answers = new Map<string, { good: number; away: number; slowestSeconds: number }>()
  readonly wrong: string[] = []
  readonly #stopped = new AbortController()
  readonly #workers: Promise<void>[] = []

  /** Asks again and again; each time the server must have done it, or have said that it can't do it now. */
  ask(name: string, one: () => Promise<{ response: Response; good: (body: string) => boolean }>): void {
    const counts = { good: 0, away: 0, slowestSeconds: 0 }
    this.answers.set(name, counts)
    const work = async () => {
      while (!this.#stopped.signal.aborted) {
        const started = performance.now()
        const { response, good } = await one()
        const body = await response.text()
        counts.slowestSeconds = Math.max(counts.slowestSeconds, (performance.now() - started) / 1000)
        if (response.status !== 503 && good(body)) counts.good += 1
        else if (response.status === 503 && saysLater(response, body)) counts.away += 1
        else
          this.wrong.push(`${name}: ${response.status} ${response.headers.get('location') ?? ''} ${body.slice(0, 300)}`)
        await delay(20) // so that nobody takes all the time of a small machine
      }
    }
    this.#workers.push(work().catch((error) => void this.wrong.push(`${name}: ${error.cause ?? error}`)))
  }

  /** Waits until everything has been answered so a few times more. */
  async until(what: 'good' | 'away', names = [...this.answers.keys()], times = 3): Promise<void> {
    const before = new Map(names.map((name) => [name, this.answers.get(name)?.[what] ?? 0]))
    const lacking = () =>
      names.filter((name) => (this.answers.get(name)?.[what] ?? 0) < (before.get(name) ?? 0) + times)
    await until(() => lacking().length === 0 || this.wrong.length > 0, 40).catch(() => {
      throw new Error(`no ${what} answers: ${lacking()} ${JSON.stringify([...this.answers])}`)
    })
  }

  async stop(): Promise<void> {
    this.#stopped.abort()
    await Promise.all(this.#workers)
  }
}

/** A 503 that every client takes for what it is (RFC 6749 §5.2 has no word for it, §4.1.2.1 has). */
function saysLater(response: Response, body: string): boolean {
  if (!(Number(response.headers.get('retry-after')) > 0) || response.headers.get('cache-control') !== 'no-store')
    return false
  if (!response.headers.get('content-type')?.startsWith('text/html'))
    return JSON.parse(body).error === 'temporarily_unavailable'
  return body.includes('Not available right now') && response.headers.has('content-security-policy')
}

const NEED_THE_DATABASE = ['refresh', 'introspect', 'register', 'revoke', 'authorize', 'sign in', 'account', 'ready']

/** Everybody at once. */
async function startLoad(t: Test, postern: TestPostern): Promise<Load> {
  const { issuer } = postern
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  const person = new Person({ accept: 'text/html' })
  let { refresh_token: refreshToken } = await obtainTokens(postern, client, {}, person)
  const { access_token: accessToken } = await obtainTokens(postern, client, {}, person)
  const resourceServer = basic(postern.resourceServer.id, postern.resourceServer.secret)
  const send = (path: string, fields: Record<string, string>, headers: Record<string, string> = {}) =>
    fetch(issuer + path, { method: 'POST', body: new URLSearchParams(fields), headers })
  const load = new Load()
  t.teardown(() => load.stop())
  load.ask('refresh', async () => {
    const fields = { grant_type: 'refresh_token', refresh_token: refreshToken, client_id: client.client_id }
    const response = await send('/token', fields)
    const good = (body: string) => {
      refreshToken = response.ok ? JSON.parse(body).refresh_token : refreshToken
      return response.ok
    }
    return { response, good }
  })
  load.ask('introspect', async () => ({
    response: await send('/introspect', { token: accessToken }, { authorization: resourceServer }),
    good: (body) => JSON.parse(body).active === true,
  }))
  load.ask('register', async () => {
    const body = JSON.stringify({ redirect_uris: ['https://app.example/callback'], token_endpoint_auth_method: 'none' })
    const headers = { 'content-type': 'application/json' }
    const response = await fetch(`${issuer}/register`, { method: 'POST', headers, body })
    return { response, good: () => response.status === 201 }
  })
  load.ask('revoke', async () => {
    const response = await send('/revoke', { token: 'unknown', client_id: client.client_id })
    return { response, good: () => response.status === 200 }
  })
  load.ask('authorize', async () => {
    const response = await person.request(authorizeUrl(postern, client, pkce().challenge))
    return { response, good: () => response.headers.get('location')?.includes('?code=postern_ac_') === true }
  })
  load.ask('account', async () => {
    const response = await person.request(`${issuer}/account`)
    return { response, good: (body) => response.status === 200 && body.includes('alice') }
  })
  load.ask('sign in', async () => {
    const [stranger, address] = [new Person({ accept: 'text/html' }), `${issuer}/login`]
    const page = await stranger.request(address)
    if (page.status !== 200) return { response: page, good: () => false }
    const html = await page.text()
    const response = await stranger.submit({ address, html }, '/login', { username: 'alice', password: PASSWORD })
    return { response, good: () => response.headers.get('location') === '/account' }
  })
  for (const [name, path] of [
    ['ready', '/health/ready'],
    ['live', '/health/live'],
    ['discovery', '/.well-known/oauth-authorization-server'],
  ] as const) {
    load.ask(name, async () => {
      const response = await fetch(issuer + path)
      return { response, good: () => response.status === 200 }
    })
  }
  return load
}

t.test(
  'while the database is away everything is answered with 503, and all is well when it is back',
  { buffered: true },
  async (t) => {
    const { postern, stopDatabase, startDatabase } = await startFragile(t)
    const load = await startLoad(t, postern)
    await load.until('good')
    await stopDatabase()
    const goneAt = performance.now()
    await load.until('away', NEED_THE_DATABASE)
    await until(() => performance.now() > goneAt + 5500) // the process has tried to build its document anew
    await load.until('good', ['live', 'discovery'])
    await startDatabase()
    await load.until('good')
    await load.stop()
    t.same(load.wrong, [])
    t.equal(load.answers.get('live')?.away, 0)
    t.equal(load.answers.get('discovery')?.away, 0)
    t.comment(JSON.stringify(Object.fromEntries(load.answers)))
  },
)

t.test('the same when Postgres crashes under the requests, twice', { buffered: true }, async (t) => {
  const { postern, pids } = await startFragile(t, { durable: true }) // what was committed must survive
  const load = await startLoad(t, postern)
  for (let times = 0; times < 2; times += 1) {
    await load.until('good')
    const [first = 0] = await pids()
    process.kill(first, 'SIGKILL')
  }
  await load.until('good')
  await load.stop()
  t.same(load.wrong, [])
  t.comment(JSON.stringify(Object.fromEntries(load.answers)))
})

t.test('the same when Postgres hangs: no request waits for ever', { buffered: true }, async (t) => {
  const { postern, pids } = await startFragile(t)
  const load = await startLoad(t, postern)
  await load.until('good')
  const frozen = await pids()
  const signal = (name: NodeJS.Signals) => {
    for (const pid of frozen) {
      try {
        process.kill(pid, name)
      } catch {} // it has ended
    }
  }
  t.teardown(() => signal('SIGCONT'))
  signal('SIGSTOP')
  await load.until('away', NEED_THE_DATABASE, 1)
  signal('SIGCONT')
  await load.until('good')
  await load.stop()
  t.same(load.wrong, [])
  for (const name of NEED_THE_DATABASE) t.ok((load.answers.get(name)?.slowestSeconds ?? 99) < 25, `${name} waited`)
  for (const name of ['live', 'discovery'])
    t.ok((load.answers.get(name)?.slowestSeconds ?? 99) < 4, `${name} didn't wait`)
  t.comment(JSON.stringify(Object.fromEntries(load.answers)))
})

t.test('a process that starts without the database has no document to give', { buffered: true }, async (t) => {
  const { postern, stopDatabase, startDatabase } = await startFragile(t)
  const { issuer: replica } = await startReplica(t, postern)
  await stopDatabase()
  const address = `${replica}/.well-known/oauth-authorization-server`
  const response = await fetch(address)
  t.equal(response.status, 503)
  t.ok(saysLater(response, await response.text()))
  await startDatabase()
  await until(async () => (await fetch(address)).status === 200)
})
