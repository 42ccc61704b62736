import { setFlagsFromString } from 'node:v8'
import type { Logger } from 'pino'
import { createFetchJson } from './clients/fetch-json.ts'
import type { Config } from './config.ts'
import type { Context } from './context.ts'
import { createSigningKeys } from './keys/signing-keys.ts'
import { startHousekeeping } from './operations/housekeeping.ts'
import { createLog } from './operations/log.ts'
import { VERSION } from './package.ts'
import { createServer } from './server.ts'
import { StartError } from './start-error.ts'
import { type DatabaseConnection, openDatabase } from './store/connection.ts'
import { databaseProblem, isDatabaseUnavailable, pingDatabase, readDatabaseVersion } from './store/database.ts'
import { startEmbeddedPostgres } from './store/embedded-postgres.ts'
import { migrateToLatest } from './store/migrate.ts'
import { hasUser } from './store/user.ts'
import { EncryptionKeyError } from './tokens/encryption.ts'
import { createFirstUser, issueSetupLink } from './users/create.ts'
import { createPasswordHasher } from './users/password.ts'
import { sealAnew } from './users/seal-anew.ts'

const POOL_SIZE = 10
/** How long the start waits for a database that is still starting itself. */
const DATABASE_WAIT_SECONDS = 30
/** How long a shutdown waits for requests under way. */
const SHUTDOWN_SECONDS = 20

/**
 * Rows of a batch look long-lived to V8, which would soon make them where only a full collection finds them, and keep
 * with them whatever they refer to: measured, half a kilobyte for each request.
 */
const KEEP_ROWS_YOUNG = '--no-allocation-site-pretenuring'

/**
 * Starts the server: database, migrations, first user, routes, housekeeping.
 *
 * @returns stops it all: requests under way are finished first
 * @throws {StartError | EmbeddedPostgresError} when an operator has to act
 */
export async function startPostern(config: Config): Promise<() => Promise<void>> {
  setFlagsFromString(KEEP_ROWS_YOUNG)
  const log = createLog(config.logLevel)
  const stops: (() => Promise<unknown>)[] = []
  const stop = async () => {
    for (const one of stops.splice(0).reverse()) await one()
  }
  try {
    const connection = await provideDatabase(config, log, stops)
    const migrated = await migrate(connection)
    if (migrated.length > 0) log.info({ event: 'migrated', migrations: migrated }, 'database migrated')
    const db = openDatabase(connection, { poolSize: POOL_SIZE, onError: logLostConnection(log) })
    stops.push(() => db.destroy())
    const context: Context = {
      config,
      db,
      fetchJson: createFetchJson(config.metadataDocumentLoopback),
      log,
      keys: createSigningKeys({ config, db, log }),
      passwords: createPasswordHasher(),
    }
    await context.keys.tend()
    await provideFirstUser(context)
    const server = await createServer(context)
    stops.push(() => server.close())
    await server.listen({ host: config.host, port: config.port })
    stops.push(startHousekeeping(context, () => sealAnew(context)))
    const database = `PostgreSQL ${await readDatabaseVersion(db)}, ${config.databaseUrl === undefined ? `embedded in ${config.dataDirectory}` : 'external'}`
    warnAboutProxies(context)
    log.info(
      { event: 'started', issuer: config.issuer, database, version: VERSION },
      `Postern ${VERSION} serves ${config.issuer}`,
    )
    return stop
  } catch (error) {
    await stop()
    throw asStartError(error, config)
  }
}

/**
 * Stops at SIGTERM and SIGINT; a second signal, or requests that take too long, end the process at once. So does a
 * signal while the server starts: the first process of a container would otherwise not heed it.
 */
export async function stopOnSignal(starting: Promise<() => Promise<void>>): Promise<void> {
  let stop: (() => Promise<void>) | undefined
  let stopping = false
  const onSignal = () => {
    if (stopping) process.exit(1)
    if (stop === undefined) process.exit(0)
    stopping = true
    setTimeout(() => process.exit(1), SHUTDOWN_SECONDS * 1000).unref()
    stop().then(
      () => process.exit(0),
      () => process.exit(1),
    )
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  stop = await starting
}

/** Where the database is; the embedded one is started, and an external one waited for. */
async function provideDatabase(
  config: Config,
  log: Logger,
  stops: (() => Promise<unknown>)[],
): Promise<DatabaseConnection> {
  if (config.databaseUrl !== undefined) {
    const connection = { connectionString: config.databaseUrl }
    await waitForDatabase(connection, log)
    return connection
  }
  const embedded = await startEmbeddedPostgres({
    dataDirectory: config.dataDirectory,
    log: (message) => log.info({ event: 'embedded_postgres' }, message),
  })
  stops.push(() => embedded.stop())
  return embedded.connection
}

/** In a container the database often starts at the same time. */
async function waitForDatabase(connection: DatabaseConnection, log: Logger): Promise<void> {
  const db = openDatabase(connection, { poolSize: 1, onError: () => {} })
  try {
    for (let waited = 0; ; waited += 1) {
      try {
        return await pingDatabase(db)
      } catch (error) {
        if (!isDatabaseUnavailable(error) || waited >= DATABASE_WAIT_SECONDS) throw error
        log.info({ event: 'waiting_for_database', reason: (error as Error).message }, 'waiting for the database')
        await new Promise((resolve) => setTimeout(resolve, 1000))
      }
    }
  } finally {
    await db.destroy()
  }
}

async function migrate(connection: DatabaseConnection): Promise<string[]> {
  const db = openDatabase(connection, { poolSize: 1, onError: () => {}, patient: true })
  try {
    return await migrateToLatest(db)
  } finally {
    await db.destroy()
  }
}

function logLostConnection(log: Logger): (error: Error) => void {
  return (error) => log.warn({ event: 'connection_lost', err: error }, 'a database connection was lost')
}

/** Behind a proxy that isn't named, everybody seems to come from one address, and shares its limits. */
function warnAboutProxies({ config, log }: Context): void {
  if (!config.issuer.startsWith('https:') || config.trustProxy !== false) return
  const advice =
    'ISSUER is https, so there is a proxy: name it in POSTERN_TRUST_PROXY, or all people count as one address'
  log.warn({ event: 'proxy_not_trusted' }, advice)
}

/**
 * With no user, one is created as the environment says, or else a link is printed that lets a person do it. Where
 * passwords are off, that one could not come back.
 */
async function provideFirstUser(context: Context): Promise<void> {
  const { config, db, log } = context
  if (await hasUser(db)) return
  if (config.adminUsername === undefined || config.adminPassword === undefined) {
    if (!config.passwordSignIn) {
      const advice = 'There is no user yet, and passwords are off: postern provider add … --create-users'
      log.warn({ event: 'no_user' }, advice)
      return
    }
    // the one secret that is meant to be read in the log
    const link = await issueSetupLink(context)
    log.warn({ event: 'setup_link' }, `Nobody can sign in yet. Create the first administrator at ${link}`)
    return
  }
  const result = await createFirstUser(context, { username: config.adminUsername, password: config.adminPassword })
  if (result.outcome === 'refused')
    throw new StartError(`POSTERN_ADMIN_USERNAME, POSTERN_ADMIN_PASSWORD: ${result.problem}`)
  if (result.outcome === 'created')
    log.info({ event: 'first_user_created', user_id: result.user.id }, 'first user created')
}

function asStartError(error: unknown, config: Config): unknown {
  if (error instanceof EncryptionKeyError) return new StartError(error.message)
  const { code, message, syscall, hostname } = error as Record<string, unknown>
  if (code === 'EADDRINUSE')
    return new StartError(`Port ${config.port} on ${config.host} is in use by another program; set PORT.`)
  if (syscall === 'listen' || (syscall === 'getaddrinfo' && hostname === config.host)) {
    return new StartError(
      `Postern can't listen on ${config.host}, port ${config.port}: ${String(message)}; set HOST or PORT.`,
    )
  }
  if (config.databaseUrl !== undefined && code === 'ERR_INVALID_URL') {
    return new StartError(
      "DATABASE_URL can't be read: characters such as # and / in a password must be percent-encoded.",
    )
  }
  if (config.databaseUrl !== undefined && (isDatabaseUnavailable(error) || /^(28|3D)/.test(String(code)))) {
    return new StartError(`The database of DATABASE_URL can't be used: ${databaseProblem(error)}.`)
  }
  return error
}
