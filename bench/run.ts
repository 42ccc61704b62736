/**
 * `npm run bench`: how many requests a second one Postern answers, on an embedded Postgres that flushes to disk, for
 * requests without the database, introspection, and refresh rotation. Absolute figures depend on the machine: read the
 * ratios, which come from one run, round by round in turn.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Pool } from 'undici'
import { readConfig } from '../src/config.ts'
import { startPostern } from '../src/main.ts'
import { openDatabase } from '../src/store/database.ts'
import { startEmbeddedPostgres } from '../src/store/embedded-postgres.ts'
import { seed } from './seed.ts'

const CONNECTIONS = 32
const ROUNDS = 5
const PORT = 3900

const quick = process.argv.includes('--quick')
const requestsPerRound = quick ? 1_000 : 5_000

const folder = await mkdtemp(join(tmpdir(), 'postern-bench-'))
const postgres = await startEmbeddedPostgres({ dataDirectory: folder })
const { host, user, database } = postgres.connection
const databaseUrl = `postgres://${user}@localhost/${database}?host=${encodeURIComponent(host)}`
const stop = await startPostern(readConfig({ PORT: String(PORT), DATABASE_URL: databaseUrl, LOG_LEVEL: 'silent' }))
const db = openDatabase(postgres.connection, { poolSize: 2, onError: () => {} })
try {
  const { resourceServer, client, families } = await seed(db, readConfig({ PORT: String(PORT) }), CONNECTIONS)
  const pool = new Pool(`http://127.0.0.1:${PORT}`, { connections: CONNECTIONS })
  const post = async (path: string, form: Record<string, string>, headers: Record<string, string> = {}) => {
    const type = { 'content-type': 'application/x-www-form-urlencoded' }
    const body = new URLSearchParams(form).toString()
    const answer = await pool.request({ method: 'POST', path, body, headers: { ...type, ...headers } })
    const text = await answer.body.text()
    if (answer.statusCode !== 200) throw new Error(`${path} answered ${answer.statusCode}: ${text}`)
    return JSON.parse(text)
  }
  const basic = `Basic ${Buffer.from(`${resourceServer.id}:${resourceServer.secret}`).toString('base64')}`
  const operations: Record<string, (worker: number) => Promise<unknown>> = {
    'no database': async () => (await pool.request({ method: 'GET', path: '/health/live' })).body.dump(),
    introspection: (worker) =>
      post('/introspect', { token: families[worker]?.accessToken ?? '' }, { authorization: basic }),
    refresh: async (worker) => {
      const family = families[worker]
      if (family === undefined) return
      const form = { grant_type: 'refresh_token', client_id: client, refresh_token: family.refreshToken }
      const tokens = await post('/token', form)
      family.refreshToken = tokens.refresh_token
      family.accessToken = tokens.access_token
    },
  }
  const rates = new Map(Object.keys(operations).map((name) => [name, [] as number[]]))
  for (let round = 0; round <= ROUNDS; round += 1) {
    for (const [name, operation] of Object.entries(operations)) {
      const rate = await measure(operation)
      if (round > 0) rates.get(name)?.push(rate) // the first round warms up
      process.stdout.write(
        `${round === 0 ? 'warm-up' : `round ${round}`}  ${name.padEnd(14)} ${Math.round(rate)} per second\n`,
      )
    }
  }
  const limit = median(rates.get('no database') ?? [])
  for (const [name, all] of rates) {
    const spread = `${Math.round(Math.min(...all))} to ${Math.round(Math.max(...all))}`
    const ratio = (median(all) / limit).toFixed(2)
    process.stdout.write(
      `${name.padEnd(14)} median ${Math.round(median(all))} (${spread}), ${ratio} of "no database"\n`,
    )
  }
  await pool.close()
} finally {
  await db.destroy()
  await stop()
  await postgres.stop()
  await rm(folder, { recursive: true, force: true })
}

/** Requests per second of CONNECTIONS workers that each send one after the other. */
async function measure(operation: (worker: number) => Promise<unknown>): Promise<number> {
  const each = Math.ceil(requestsPerRound / CONNECTIONS)
  const startedAt = process.hrtime.bigint()
  await Promise.all(
    Array.from({ length: CONNECTIONS }, async (_, worker) => {
      for (let n = 0; n < each; n += 1) await operation(worker)
    }),
  )
  return (each * CONNECTIONS) / (Number(process.hrtime.bigint() - startedAt) / 1e9)
}

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0
}
