import { promises as fs } from 'node:fs'
import path from 'node:path'
import { type Kysely, sql } from 'kysely'
import { FileMigrationProvider, Migrator } from 'kysely/migration'
import type { Database } from './database.ts'

/**
 * Brings the database to the newest version. All steps run in one transaction under an advisory lock: of any
 * number of processes one works and the others wait, and a failure leaves nothing half done.
 *
 * @param db opened to be patient: an index of a large table takes long, and so does waiting for another process
 * @returns the names of the migrations that were applied now
 */
export async function migrateToLatest(db: Kysely<Database>): Promise<string[]> {
  return db.connection().execute(async (connection) => {
    await sql`set statement_timeout = 0`.execute(connection) // whatever the role, the database or the URL say
    const { error, results } = await createMigrator(connection).migrateToLatest()
    await sql`reset statement_timeout`.execute(connection)
    if (error !== undefined) throw error
    return (results ?? []).map(({ migrationName }) => migrationName)
  })
}

/** The names of the migrations that `migrateToLatest` would apply. */
export async function listPendingMigrations(db: Kysely<Database>): Promise<string[]> {
  const migrations = await createMigrator(db).getMigrations()
  return migrations.filter(({ executedAt }) => executedAt === undefined).map(({ name }) => name)
}

function createMigrator(db: Kysely<Database>): Migrator {
  const migrationFolder = path.join(import.meta.dirname, '..', '..', 'migrations')
  return new Migrator({ db, provider: new FileMigrationProvider({ fs, path, migrationFolder }) })
}
