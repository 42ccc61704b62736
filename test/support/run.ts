/**
 * What `npm test` runs: starts one Postgres for all test files, migrates a template database in it, and runs
 * tap with its address in the environment. TEST_DATABASE_URL names another Postgres instead.
 */
import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openDatabase } from '../../src/store/connection.ts'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../src/store/embedded-postgres.ts'
import { migrateToLatest } from '../../src/store/migrate.ts'
import { administrate, TEMPLATE, withDatabase } from './database.ts'

const folder = await mkdtemp(join(tmpdir(), 'postern-test-'))
let postgres: EmbeddedPostgres | undefined
try {
  const url = process.env.TEST_DATABASE_URL ?? (await startCluster())
  await administrate(url, `drop database if exists ${TEMPLATE} with (force)`)
  await administrate(url, `create database ${TEMPLATE}`)
  const db = openDatabase({ connectionString: withDatabase(url, TEMPLATE) }, { poolSize: 1, onError: () => {} })
  await migrateToLatest(db)
  await db.destroy()
  process.exitCode = await runTap(url)
} finally {
  await postgres?.stop()
  await rm(folder, { recursive: true, force: true })
}

async function startCluster(): Promise<string> {
  postgres = await startEmbeddedPostgres({
    dataDirectory: folder,
    durable: false,
    // a worker of autovacuum in a database that is being dropped can be ended by a superuser only, which we aren't
    settings: { max_connections: '400', autovacuum: 'off' },
  })
  const { host, port, user, database } = postgres.connection
  return `postgres://${user}@localhost:${port}/${database}?host=${encodeURIComponent(host)}`
}

async function runTap(url: string): Promise<number> {
  const files = process.argv.slice(2)
  const tap = join(import.meta.dirname, '..', '..', '..', 'node_modules', '.bin', 'tap')
  const child = spawn(tap, ['run', ...files], {
    stdio: 'inherit',
    shell: process.platform === 'win32',
    env: {
      ...process.env,
      TEST_DATABASE_URL: url,
      ...(process.stdout.isTTY ? {} : { CI: 'true' }), // or tap draws over what is no screen, many times a second
    },
  })
  return new Promise((resolve) => child.on('exit', (code) => resolve(code ?? 1)))
}
