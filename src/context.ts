import type { Kysely } from 'kysely'
import type { Logger } from 'pino'
import type { FetchJson } from './clients/fetch-json.ts'
import type { Config } from './config.ts'
import type { SigningKeys } from './keys/signing-keys.ts'
import type { Database } from './store/database.ts'
import type { PasswordHasher } from './users/password.ts'

/** What every step of a request may use. */
export interface Context {
  config: Config
  db: Kysely<Database>
  /** from addresses that clients name */
  fetchJson: FetchJson
  keys: SigningKeys
  log: Logger
  passwords: PasswordHasher
}
