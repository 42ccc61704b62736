import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

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
export interface Account {
  uid: number
  gid: number
}

/** Postgres's programs: `native` holds bin, lib and share. */
export interface Programs {
  native: string
  version: string
}

export interface Cluster {
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

export interface Running {
  /** Why it ended. */
  ended: Promise<string>
  /** Stops it without any tidying; the next start recovers. */
  quit(): void
}

export const PORT = 5432 // a part of the socket's name; nothing listens on the network
export const SOCKET = `.s.PGSQL.${PORT}`
export const NAME = 'postern' // of the database, and of its owner, who is no superuser, as in production
export const OWN_POSTGRES = 'set DATABASE_URL to use a Postgres server of your own'

// Nothing is inherited: PGPORT and the like would change what Postgres does, a locale the messages that we read.
export const environment = { PATH: '/usr/bin:/bin', LC_ALL: 'C' }

export const run = promisify(execFile)

/**
 * Names a folder for a process that starts in it. The account may be unable to enter a parent, such as /root: then the
 * path means nothing to it, but the folder in which it starts is open to it all the same.
 */
export function seenFromWithin(folder: string, account: Account | undefined): string {
  return account !== undefined && process.platform === 'linux' ? '/proc/self/cwd' : folder
}

export function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}

/** @returns what a program that we ran said on standard error, or else why it couldn't be run */
export function reasonOf(error: unknown): string {
  const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : ''
  return (said || String(error instanceof Error ? error.message : error)).replaceAll('\n', '; ')
}
