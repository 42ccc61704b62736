import { createReadStream } from 'node:fs'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { finished } from 'node:stream/promises'
import pg from 'pg'
import { startEmbeddedPostgres } from '../src/store/embedded-postgres.ts'

/** The Postgres of a run, in which each server has a database of its own. */
export interface Cluster {
  version: string
  /** process id of the postmaster */
  pid: number
  createDatabase(name: string): Promise<void>
  /** @param port of a proxy on loopback; otherwise the Unix socket */
  urlOf(database: string, port?: number): string
  socket: string
  /** Reads all files of a database into the memory of the system, where those of a server that runs for long are. */
  warm(database: string): Promise<void>
  stop(): Promise<void>
}

/**
 * Of Postgres: room for the connections of every server, and for millions of rows without a checkpoint each second; and a
 * quarter of the memory, as its documentation advises.
 */
const SETTINGS = {
  max_connections: '200',
  max_wal_size: '8GB',
  shared_buffers: `${Math.floor(totalmem() / 4 / 2 ** 20)}MB`,
}

/** Starts an embedded Postgres in a new folder, with fsync. */
export async function startCluster(): Promise<Cluster> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-bench-'))
  const postgres = await startEmbeddedPostgres({ dataDirectory: folder, settings: SETTINGS })
  const { host, port, user, database } = postgres.connection
  const urlOf = (name: string, proxyPort?: number) =>
    proxyPort === undefined
      ? `postgres://${user}@localhost/${name}?host=${encodeURIComponent(host)}`
      : `postgres://${user}@127.0.0.1:${proxyPort}/${name}`
  const administrate = (text: string) => withClient(urlOf(database), (client) => client.query(text))
  const postmaster = await readFile(join(folder, 'postgres', 'postmaster.pid'), 'utf8')
  return {
    version: (await administrate('show server_version')).rows[0].server_version,
    pid: Number.parseInt(postmaster, 10),
    createDatabase: async (name) => {
      await administrate(`create database ${name}`)
    },
    urlOf,
    socket: join(host, `.s.PGSQL.${port}`),
    async warm(name) {
      const { rows } = await administrate(`select oid from pg_database where datname = '${name}'`)
      const files = join(folder, 'postgres', 'base', String(rows[0].oid))
      for (const file of await readdir(files)) await finished(createReadStream(join(files, file)).resume())
    },
    async stop() {
      await postgres.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** Connects, and closes the connection when the task has ended. */
export async function withClient<Result>(url: string, task: (client: pg.Client) => Promise<Result>): Promise<Result> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return await task(client)
  } finally {
    await client.end()
  }
}
