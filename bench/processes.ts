import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'

const canPin = process.platform === 'linux' && spawnSync('taskset', ['-c', '0', 'true']).status === 0

/** Whether processes stay on the core that they are given. */
export const PINNING = canPin

/**
 * Starts a program of this package.
 *
 * @param core the only one that it may use, where that can be had; `undefined`: any
 * @param file compiled, from the folder of the build
 */
export function startProgram(
  core: number | undefined,
  file: string,
  environment: Record<string, string>,
  args: string[] = [],
  nodeOptions: string[] = [],
): ChildProcess {
  const command = [process.execPath, ...nodeOptions, join(import.meta.dirname, '..', file), ...args]
  const pinned = canPin && core !== undefined ? ['taskset', '-c', String(core), ...command] : command
  const [program = '', ...rest] = pinned
  return spawn(program, rest, {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    env: { PATH: process.env.PATH ?? '', NODE_ENV: 'production', ...environment },
  })
}

/** Ends a process, and waits until it has. */
export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const late = setTimeout(() => child.kill('SIGKILL'), 5000)
  await ended
  clearTimeout(late)
}

export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

const TICK_MICROSECONDS = 10_000 // Linux counts in hundredths of a second, whatever its timer does

/** CPU time that a process has used, in microseconds; `undefined` where /proc doesn't say. */
export function cpuOf(pid: number): number | undefined {
  const times = readTimes(pid)
  return times && (times.user + times.system) * TICK_MICROSECONDS
}

/** CPU time of Postgres: its postmaster, all processes below it, and those that have ended. */
export function cpuOfPostgres(postmaster: number): number | undefined {
  const own = readTimes(postmaster)
  if (own === undefined) return undefined
  let ticks = own.user + own.system + own.ended
  for (const name of readdirSync('/proc')) {
    const times = /^\d+$/.test(name) ? readTimes(Number(name)) : undefined
    if (times?.parent === postmaster) ticks += times.user + times.system
  }
  return ticks * TICK_MICROSECONDS
}

function readTimes(pid: number): { parent: number; user: number; system: number; ended: number } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ') // from the third on: the name may hold anything
    const at = (index: number) => Number(fields[index])
    return { parent: at(1), user: at(11), system: at(12), ended: at(13) + at(14) }
  } catch {
    return undefined // no /proc, or the process has ended
  }
}

/** Resident memory in mebibytes; `undefined` where /proc doesn't say. */
export function memoryOf(pid: number): number | undefined {
  try {
    const kibibytes = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
    return kibibytes === undefined ? undefined : Number(kibibytes) / 1024
  } catch {
    return undefined
  }
}
