import { promises as fs } from 'node:fs'
import path from 'node:path'
import { type Kysely, sql } from 'kysely'
import type { Migrator } from 'kysely/migration'
import { MIGRATIONS } from '../package.ts'
import type { Database } from './database.ts'

/**
 * Brings the database to the newest version. All steps run in one transaction under an advisory lock: of any
 * number of processes one works and the others wait, and a failure leaves nothing half done.
 *
 * @param db opened to be patient: an index of a large table takes long, and so does waiting for another process
 * @returns the names of the migrations that were applied now
 */
export async function migrateToLatest(db: Kysely<Database>): Promise<string[]> {
  if (await isLatest(db)) return []
  const migrator = await loadMigrator()
  return db.connection().execute(async (connection) => {
    await sql`set statement_timeout = 0`.execute(connection) // whatever the role, the database or the URL say
    const { error, results } = await migrator(connection).migrateToLatest()
    await sql`reset statement_timeout`.execute(connection)
    if (error !== undefined) throw error
    return (results ?? []).map(({ migrationName }) => migrationName)
  })
}

/** The names of the migrations that `migrateToLatest` would apply. */
export async function listPendingMigrations(db: Kysely<Database>): Promise<string[]> {
  const migrator = await loadMigrator()
  const migrations = await migrator(db).getMigrations()
  return migrations.filter(({ executedAt }) => executedAt === undefined).map(({ name }) => name)
}

/** Whether the database has all migrations, and no others: most starts need no more than to know this. */
async function isLatest(db: Kysely<Database>): Promise<boolean> {
  const { rows } = await sql<{ exists: boolean }>`select to_regclass('kysely_migration') is not null as exists`.execute(
    db,
  )
  if (!rows[0]?.exists) return false
  const applied = await sql<{ name: string }>`select name from kysely_migration`.execute(db)
  const files = (await fs.readdir(MIGRATIONS)).filter((file) => /\.[jt]s$/.test(file) && !file.endsWith('.d.ts'))
  const names = new Set(files.map((file) => path.parse(file).name))
  return applied.rows.length === names.size && applied.rows.every(({ name }) => names.has(name))
}

/** Loads what migrates, and the migrations with it. */
async function loadMigrator(): Promise<(db: Kysely<Database>) => Migrator> {
  const { FileMigrationProvider, Migrator } = await import('kysely/migration')
  const provider = new FileMigrationProvider({ fs, path, migrationFolder: MIGRATIONS })
  return (db) => new Migrator({ db, provider })
}
