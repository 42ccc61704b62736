import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import fs from 'node:fs/promises'
import path, { join } from 'node:path'
import { type Kysely, sql } from 'kysely'
import { FileMigrationProvider, Migrator } from 'kysely/migration'
import pg from 'pg'
import t, { type Test } from 'tap'
import { openDatabase } from '../../src/store/connection.ts'
import type { Database } from '../../src/store/database.ts'
import { migrateToLatest } from '../../src/store/migrate.ts'
import { randomId } from '../../src/tokens/secret.ts'
import { administrate, withDatabase } from '../support/database.ts'
import { until } from '../support/until.ts'

const MIGRATIONS = readdirSync(join(import.meta.dirname, '..', '..', 'migrations'))
  .filter((name) => name.endsWith('.js'))
  .map((name) => name.replace(/\.js$/, ''))
  .sort()

t.test('an empty database is brought to the newest version, and once is enough', async (t) => {
  const { db } = await createEmptyDatabase(t)
  t.same(await migrateToLatest(db), MIGRATIONS)
  const before = await describeSchema(db)
  t.ok(before.length > 50)
  t.same(await migrateToLatest(db), [])
  t.same(await describeSchema(db), before)
})

t.test('of processes that migrate at the same time one works, and the others wait for it', async (t) => {
  const { url } = await createEmptyDatabase(t)
  const replicas = Array.from({ length: 3 }, () => open(t, url))
  const applied = await Promise.all(replicas.map((db) => migrateToLatest(db)))
  t.same(
    applied.filter((names) => names.length > 0),
    [MIGRATIONS],
  )
  for (const db of replicas) await db.selectFrom('token_family').selectAll().execute()
})

t.test('a migration that is killed half-way leaves nothing, and the next one does it all', async (t) => {
  const { url, db } = await createEmptyDatabase(t)
  const empty = await describeSchema(db)
  const removeObstacle = await obstruct(t, url)
  const child = spawnMigration(t, url)
  await until(async () => (await migrating(db)).some(({ waiting, query }) => waiting && query.includes('access_token')))
  child.kill('SIGKILL')
  await once(child, 'exit')
  await removeObstacle()
  await until(async () => (await migrating(db)).length === 0)
  t.same(
    (await describeSchema(db)).filter((line) => !line.startsWith('kysely_')),
    empty,
  )
  t.same(await migrateToLatest(db), MIGRATIONS)
})

t.test('a migration may take longer than a statement of the server may', async (t) => {
  const { url, db } = await createEmptyDatabase(t)
  const removeObstacle = await obstruct(t, url)
  const hurried = new URL(url)
  hurried.searchParams.set('statement_timeout', '100')
  const migrated = migrateToLatest(open(t, hurried.href))
  migrated.catch(() => {})
  await Promise.race([migrated, until(async () => (await migrating(db)).some(({ seconds }) => seconds > 0.3))])
  await removeObstacle()
  t.same(await migrated, MIGRATIONS)
})

t.test('tokens of before say whose they are, and those whose family has gone are removed (019)', async (t) => {
  const { db } = await createEmptyDatabase(t)
  const folder = join(import.meta.dirname, '..', '..', 'migrations')
  const provider = new FileMigrationProvider({ fs, path, migrationFolder: folder })
  const { error } = await new Migrator({ db, provider }).migrateTo('018-rotation')
  t.equal(error, undefined)
  const [userId, resourceId, familyId] = [randomId(), randomId(), randomId()]
  await sql`insert into "user" (id, username, username_key, is_administrator, created_at)
    values (${userId}, 'alice', 'alice', false, now())`.execute(db)
  await sql`insert into resource (id, uri, secret_hash, scopes, is_default, created_at)
    values (${resourceId}, 'https://mcp.example.com', '', '[]', true, now())`.execute(db)
  await sql`insert into client (
      id, token_endpoint_auth_method, redirect_uris, grant_types, description, registration, created_at
    ) values ('app', 'none', '{}', '{}', '{}', 'operator', now())`.execute(db)
  await sql`insert into token_family (
      id, client_id, user_id, resource_id, scope, generation, superseded_secret_hashes, superseded_at,
      access_token_hash, created_at, last_used_at, expires_at, ends_at, removal_check_at
    ) values (${familyId}, 'app', ${userId}, ${resourceId}, '{}', 0, '{}', '{}', 'a', now(), now(), now(), now(), now())`.execute(
    db,
  )
  await sql`insert into access_token (token_hash, family_id, client_id, resource_id, scope, issued_at, expires_at) values
    ('a', ${familyId}, null, ${resourceId}, '', now(), now()),
    ('b', null, 'app', ${resourceId}, '', now(), now()),
    ('c', ${randomId()}, null, ${resourceId}, '', now(), now())`.execute(db)
  await migrateToLatest(db)
  const { rows } = await sql`
    select convert_from(token_hash, 'UTF8') as token, client_id, user_id from access_token order by 1`.execute(db)
  t.same(rows, [
    { token: 'a', client_id: 'app', user_id: userId },
    { token: 'b', client_id: 'app', user_id: null },
  ])
})

/** A database without tables; it goes when the test ends. */
async function createEmptyDatabase(t: Test): Promise<{ url: string; db: Kysely<Database> }> {
  const cluster = process.env.TEST_DATABASE_URL
  if (cluster === undefined) throw new Error('TEST_DATABASE_URL is not set: run the tests with npm test')
  const name = `test_${randomId().replaceAll('-', '')}`
  await administrate(cluster, `create database ${name}`)
  t.teardown(() => administrate(cluster, `drop database ${name} with (force)`))
  const url = withDatabase(cluster, name)
  return { url, db: open(t, url) }
}

function open(t: Test, url: string): Kysely<Database> {
  const db = openDatabase({ connectionString: url }, { poolSize: 4, onError: () => {} })
  t.teardown(() => db.destroy())
  return db
}

/** Makes migrations wait near their end: they come to a table that another transaction is creating. */
async function obstruct(t: Test, url: string): Promise<() => Promise<void>> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  await client.query('begin')
  await client.query('create table access_token ()')
  t.teardown(() => client.end())
  return async () => {
    await client.query('rollback')
  }
}

/** Migrates in another process. */
function spawnMigration(t: Test, url: string) {
  const modules = ['connection', 'migrate'].map((name) => new URL(`../../src/store/${name}.js`, import.meta.url).href)
  const script = `
    const [{ openDatabase }, { migrateToLatest }] = await Promise.all(${JSON.stringify(modules)}.map((name) => import(name)))
    await migrateToLatest(openDatabase({ connectionString: ${JSON.stringify(url)} }, { poolSize: 2, onError() {} }))`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  return child
}

/** What others than the caller do in the database right now. */
async function migrating(db: Kysely<Database>) {
  const { rows } = await sql<{ query: string; waiting: boolean; seconds: number }>`
    select query, wait_event_type = 'Lock' as waiting, extract(epoch from now() - query_start)::float8 as seconds
    from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and query ilike '%create table%' and state <> 'idle'
      and application_name = 'postern'`.execute(db)
  return rows
}

/** Every column and index of every table. */
async function describeSchema(db: Kysely<Database>): Promise<string[]> {
  const { rows } = await sql<{ line: string }>`
    select table_name || '.' || column_name || ' ' || udt_name || ' ' || is_nullable as line
    from information_schema.columns where table_schema = 'public'
    union all
    select tablename || ' ' || indexdef from pg_indexes where schemaname = 'public'
    order by 1`.execute(db)
  return rows.map(({ line }) => line)
}
