import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import {
  type Cluster,
  EmbeddedPostgresError,
  environment,
  ignoreMissing,
  OWN_POSTGRES,
  PORT,
  type Running,
  SOCKET,
  seenFromWithin,
} from './common.ts'

/**
 * Launches Postgres, when nobody else uses the folder; waits a while for others to leave.
 *
 * @param whenAnswered tried each time when another process's Postgres answers; a value ends the waiting
 */
export async function takeOver(cluster: Cluster, seconds: number): Promise<Running>
export async function takeOver<T>(
  cluster: Cluster,
  seconds: number,
  whenAnswered: () => Promise<T | undefined>,
): Promise<Running | T>
export async function takeOver<T>(
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
    if (code === 'ECONNRESET') return false // it stopped before it saw us
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

/** Connects as the superuser to the database `postgres`, in which nothing is stored. */
export async function connectTo(cluster: Cluster): Promise<pg.Client> {
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
