import type { Kysely } from 'kysely'
import type { Logger } from 'pino'
import type { Config } from './config.ts'
import type { Database } from './store/database.ts'
import type { PasswordHasher } from './users/password.ts'

/** What every step of a request may use. */
export interface Context {
  config: Config
  db: Kysely<Database>
  log: Logger
  passwords: PasswordHasher
}
