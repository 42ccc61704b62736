/**
 * A real Postgres below DATA_DIR, so that a fresh clone starts with nothing installed but Node.js.
 *
 * It belongs to the process that started it: it stops with that process, however that ends, and is started again when
 * it dies alone. It has no port and no password: its one door is a Unix socket in a folder that nobody else may enter.
 */
import { resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { findDrafts, openCluster, removeDrafts } from './embedded-postgres/cluster.ts'
import {
  type Cluster,
  EmbeddedPostgresError,
  type EmbeddedPostgresOptions,
  NAME,
  OWN_POSTGRES,
  PORT,
  type Running,
} from './embedded-postgres/common.ts'
import { connectTo, takeOver } from './embedded-postgres/launch.ts'

export { EmbeddedPostgresError } from './embedded-postgres/common.ts'

export interface EmbeddedPostgres {
  /** What `new pg.Pool(…)` needs. Child processes of the same user may use it too, while this process lives. */
  connection: { host: string; port: number; user: string; database: string; ssl: false }
  /** Resolves when Postgres has stopped (fast shutdown); leaves a joined one running. Repeating it is harmless. */
  stop(): Promise<void>
}

const JOINED_LOCK = 0x706f7374 // commands hold it, shared, while they use the Postgres of another process

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
