import type { Socket } from 'node:net'
import { CompiledQuery, Kysely, type DatabaseConnection as KyselyConnection, PostgresDialect } from 'kysely'
import pg from 'pg'
import { type Database, isOutdatedPlan } from './database.ts'

/** Where Postgres is: a URL, or the parts of one. */
export type DatabaseConnection =
  | { connectionString: string }
  | { host: string; port: number; user: string; database: string }

/** The longest that a statement may take; one that waits for longer is ended by Postgres. */
const STATEMENT_SECONDS = 10

/**
 * What connections of the server begin with. Statements are planned without their values, once: all find their rows by an
 * index whatever the values are. Otherwise Postgres would plan some anew each time, since for one row the plan costs less
 * than the planning. And they are planned without scans: what was planned while a table was small, or where one client has
 * most of its rows, would go on scanning. Nor with hashes and merges, for the same reason, and because batches change their
 * rows in the order of a sorted join (`rotateTokenFamilies`). Before version 18 a scan that can't be avoided then looks so expensive that it
 * would be compiled, which takes longer than the scan. A row that somebody holds for long ends the statement, so that of
 * a batch only the entry that needs it waits.
 */
const SERVER_SETTINGS = `
  set plan_cache_mode = force_generic_plan;
  set enable_seqscan = off;
  set enable_hashjoin = off;
  set enable_mergejoin = off;
  set jit = off;
  set lock_timeout = '5s'`

/** A connection on which nothing came for this long is dead: a partition, or a machine that vanished. */
const SILENCE_SECONDS = 15

/**
 * Opens a pool of connections; nothing is connected until the first query.
 *
 * @param options.onError told of connections that broke while idle, which the pool replaces by itself
 * @param options.patient for migrations and commands: a statement may take as long as it needs
 */
export function openDatabase(
  connection: DatabaseConnection,
  options: { poolSize: number; onError: (error: Error) => void; patient?: boolean },
): Kysely<Database> {
  const { patient = false } = options
  const pool = new pg.Pool({
    ...connection,
    Client: NamingClient,
    max: options.poolSize,
    connectionTimeoutMillis: 5_000,
    statement_timeout: patient ? 0 : STATEMENT_SECONDS * 1000,
    keepAlive: true,
    idle_in_transaction_session_timeout: 30_000,
    application_name: 'postern',
  })
  pool.on('error', options.onError)
  pool.on('connect', (client) => {
    // the pool listens only while a connection is idle, and an error that nobody hears would end the process
    client.on('error', () => {})
    if (!patient) endWhenSilent(client)
  })
  const onCreateConnection = async (created: KyselyConnection) => {
    if (patient) return
    // a failure here would keep the connection's place in the pool: what has broken shows at the statement that comes next
    await created.executeQuery(CompiledQuery.raw(SERVER_SETTINGS)).catch(() => {})
  }
  return new Kysely<Database>({ dialect: new PostgresDialect({ pool, onCreateConnection }) })
}

/** Texts of statements with their names. Ours are about a hundred; more than this would be no texts of ours. */
const STATEMENT_NAMES = new Map<string, string>()
const MOST_STATEMENTS = 500
let named = 0

/**
 * Names statements with values, so that each connection plans them once; the query builder has no place for a name. Those
 * without are transactions' words and migrations of several commands, which Postgres can't prepare.
 * Whoever puts a pool between that shares connections among transactions needs one that knows named statements.
 */
class NamingClient extends pg.Client {
  // biome-ignore lint/suspicious/noExplicitAny: the driver's method has a dozen forms, and this is for one of them
  override query(...parameters: any[]): any {
    const [text, values] = parameters
    const isPlain = parameters.length === 2 && typeof text === 'string' && Array.isArray(values) && values.length > 0
    const name = isPlain ? nameOf(text) : undefined
    if (name === undefined) return super.query(...(parameters as [never]))
    return super.query({ name, text, values }).catch((error: unknown) => {
      if (!isOutdatedPlan(error)) throw error
      STATEMENT_NAMES.delete(text) // a migration has changed its columns: from now on it has another name
      // inside a transaction the first failure has ended it, and says more
      return super.query(text, values).catch((second: unknown) => {
        throw isTransactionAborted(second) ? error : second
      })
    })
  }
}

function nameOf(text: string): string | undefined {
  const known = STATEMENT_NAMES.get(text)
  if (known !== undefined || STATEMENT_NAMES.size >= MOST_STATEMENTS) return known
  named += 1
  const name = `postern_${named}`
  STATEMENT_NAMES.set(text, name)
  return name
}

function isTransactionAborted(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.code === '25P02'
}

/** Ends a connection that has gone silent: the operating system would notice after a quarter of an hour. */
function endWhenSilent(client: pg.PoolClient): void {
  const { stream } = (client as unknown as { connection: { stream: Socket } }).connection
  stream.setTimeout(SILENCE_SECONDS * 1000, () => stream.destroy())
}
