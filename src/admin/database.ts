import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Config } from '../config.ts'
import type { Context } from '../context.ts'
import { openDatabase } from '../store/connection.ts'
import { databaseProblem, isDatabaseUnavailable, pingDatabase } from '../store/database.ts'
import { joinOrStartEmbeddedPostgres } from '../store/embedded-postgres.ts'
import { migrateToLatest } from '../store/migrate.ts'
import { AdminError, type Answer, printProblem } from './output.ts'

type Database = Context['db']

const POOL_SIZE = 2
/** A server whose database was joined may be stopping: then a command starts the database itself. */
const ATTEMPTS = 3

/** Works with the database, which is brought up to date first; the server may be running or not. */
export async function withDatabase<T>(config: Config, work: (db: Database) => Promise<T>): Promise<T> {
  return withUnmigratedDatabase(config, async (db) => {
    await migrate(db)
    return work(db)
  })
}

/** Works with the database as it is. */
export async function withUnmigratedDatabase<T>(config: Config, work: (db: Database) => Promise<T>): Promise<T> {
  const { db, close } = await open(config)
  try {
    return await work(db)
  } catch (error) {
    if (!isDatabaseUnavailable(error)) throw error
    throw new AdminError(`The database went away: ${databaseProblem(error)}. Look whether it was done, and try again.`)
  } finally {
    await close()
  }
}

/** Brings the database to the newest version. @returns the names of the migrations that were applied */
export async function migrate(db: Database): Promise<string[]> {
  try {
    return await migrateToLatest(db)
  } catch (error) {
    throw new AdminError(`The database can't be migrated: ${databaseProblem(error)}.`)
  }
}

/** `postern migrate` */
export async function migrateCommand(config: Config): Promise<Answer> {
  const migrations = await withUnmigratedDatabase(config, migrate)
  const text =
    migrations.length === 0
      ? ['Nothing to do: the database is up to date.']
      : migrations.map((name) => `Applied ${name}.`)
  return { json: { migrations }, text }
}

interface OpenDatabase {
  db: Database
  close: () => Promise<void>
}

async function open(config: Config): Promise<OpenDatabase> {
  for (let attempt = 1; ; attempt += 1) {
    const opened = config.databaseUrl === undefined ? await openEmbedded(config) : openExternal(config.databaseUrl)
    try {
      await pingDatabase(opened.db)
      return opened
    } catch (error) {
      await opened.close()
      if (config.databaseUrl !== undefined) {
        throw new AdminError(`The database of DATABASE_URL can't be used: ${databaseProblem(error)}.`)
      }
      if (attempt === ATTEMPTS || !isDatabaseUnavailable(error)) throw error
    }
  }
}

function openExternal(connectionString: string): OpenDatabase {
  const db = openDatabase({ connectionString }, { poolSize: POOL_SIZE, onError: () => {}, patient: true })
  return { db, close: () => db.destroy() }
}

async function openEmbedded({ dataDirectory }: Config): Promise<OpenDatabase> {
  const isNew = !existsSync(join(dataDirectory, 'postgres'))
  const embedded = await joinOrStartEmbeddedPostgres({ dataDirectory })
  // a person may be in another folder than the server
  if (isNew && process.stderr.isTTY) printProblem(`A new database was created in ${resolve(dataDirectory)}.`)
  const db = openDatabase(embedded.connection, { poolSize: POOL_SIZE, onError: () => {}, patient: true })
  return {
    db,
    async close() {
      await db.destroy()
      await embedded.stop()
    },
  }
}
