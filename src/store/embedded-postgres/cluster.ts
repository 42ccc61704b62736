import { closeSync, openSync } from 'node:fs'
import { chown, mkdir, mkdtemp, open, readdir, readFile, rename, rm, stat, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import {
  type Account,
  type Cluster,
  EmbeddedPostgresError,
  type EmbeddedPostgresOptions,
  environment,
  ignoreMissing,
  NAME,
  OWN_POSTGRES,
  PORT,
  type Programs,
  reasonOf,
  run,
  SOCKET,
  seenFromWithin,
} from './common.ts'
import { findPrograms } from './programs.ts'

const SOCKET_PATH_BYTES = 103 // on macOS; 107 on Linux

export async function openCluster(folder: string, options: EmbeddedPostgresOptions): Promise<Cluster> {
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

export async function findDrafts(folder: string): Promise<string[]> {
  const names = await readdir(dirname(folder))
  return names.map((name) => join(dirname(folder), name)).filter((path) => path.startsWith(`${folder}.init-`))
}

/** Removes unfinished clusters. What is being written at this moment may stay, until a later start. */
export async function removeDrafts(...drafts: string[]): Promise<void> {
  if (drafts.length === 0) return
  // `rm` descends without following links; the account could slip one under the feet of Node's own
  await run('rm', ['-rf', '--', ...drafts]).catch(() => undefined)
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
