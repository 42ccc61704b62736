import { promises as fs } from 'node:fs'
import path from 'node:path'
import type { Kysely } from 'kysely'
import { FileMigrationProvider, Migrator } from 'kysely/migration'
import type { Database } from './database.ts'

/**
 * Brings the database to the newest version. All steps run in one transaction under an advisory lock: of any
 * number of processes one works and the others wait, and a failure leaves nothing half done.
 *
 * @returns the names of the migrations that were applied now
 */
export async function migrateToLatest(db: Kysely<Database>): Promise<string[]> {
  const migrationFolder = path.join(import.meta.dirname, '..', '..', 'migrations')
  const migrator = new Migrator({ db, provider: new FileMigrationProvider({ fs, path, migrationFolder }) })
  const { error, results } = await migrator.migrateToLatest()
  if (error !== undefined) throw error
  return (results ?? []).map(({ migrationName }) => migrationName)
}
