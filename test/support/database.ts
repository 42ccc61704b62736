import { randomBytes } from 'node:crypto'
import { type CompiledQuery, type Kysely, sql } from 'kysely'
import pg from 'pg'
import type { Test } from 'tap'
import { openDatabase } from '../../src/store/connection.ts'
import type { Database } from '../../src/store/database.ts'

/** Of the cluster that test/support/run.ts started, or of any other Postgres; its user may create databases. */
const CLUSTER_URL = process.env.TEST_DATABASE_URL

/** The database that test/support/run.ts has migrated: a copy takes a few milliseconds. */
export const TEMPLATE = 'postern_template'

/** A migrated, empty database of its own for one test file; it goes when the test ends. */
export async function createTestDatabase(t: Test): Promise<{ url: string; db: Kysely<Database> }> {
  if (CLUSTER_URL === undefined) throw new Error('TEST_DATABASE_URL is not set: run the tests with npm test')
  const name = `test_${randomBytes(8).toString('hex')}`
  await administrate(CLUSTER_URL, `create database ${name} template ${TEMPLATE}`)
  const url = withDatabase(CLUSTER_URL, name)
  const db = openDatabase({ connectionString: url }, { poolSize: 20, onError: () => {} })
  t.teardown(async () => {
    await db.destroy()
    await administrate(CLUSTER_URL, `drop database ${name} with (force)`)
  })
  return { url, db }
}

/** Runs one statement in the cluster's own database. */
export async function administrate(clusterUrl: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: clusterUrl })
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}

/** The same address with another database. */
export function withDatabase(clusterUrl: string, name: string): string {
  const url = new URL(clusterUrl)
  url.pathname = `/${name}`
  return url.href
}

/**
 * Lets time pass for everything that is stored: every instant moves into the past. Postern takes the time from
 * the database, so this is the same as waiting.
 */
export async function letTimePass(db: Kysely<Database>, seconds: number): Promise<void> {
  const { rows } = await sql<{ table_name: string; column_name: string; is_array: boolean }>`
    select c.table_name, c.column_name, c.data_type = 'ARRAY' as is_array
    from information_schema.columns c
    where c.table_schema = 'public' and c.udt_name in ('timestamptz', '_timestamptz')
      and c.table_name not like 'kysely%'`.execute(db)
  for (const { table_name, column_name, is_array } of rows) {
    const column = sql.ref(column_name)
    const shift = sql`make_interval(secs => ${seconds})`
    const shifted = is_array
      ? sql`array(select at - ${shift} from unnest(${column}) with ordinality as s (at, position) order by position)`
      : sql`${column} - ${shift}`
    await sql`update ${sql.table(table_name)} set ${column} = ${shifted} where ${column} is not null`.execute(db)
  }
}

/** Captures the statements that are sent from now on, but for those that measure the round trip (`store/batch.ts`). */
export function captureStatements(t: Test, db: Kysely<Database>): () => string[] {
  const captured = t.capture(db, 'executeQuery', db.executeQuery)
  const sent: string[] = []
  return () => {
    sent.push(...captured().map(({ args: [query] }) => (query as CompiledQuery).sql))
    return sent.filter((text) => text !== 'select')
  }
}
