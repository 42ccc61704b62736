import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'

/** How long a program may take to say that it is ready, and to stop. */
const PATIENCE = 30_000 // milliseconds

/** A program that runs beside the test. */
export interface RunningProgram {
  process: ChildProcess
  /** every line of its standard output so far */
  lines: string[]
  /** Waits for a line, past or to come. */
  line(wanted: (line: string) => boolean): Promise<string>
  /** Ends it with SIGTERM, and waits until it is gone. */
  stop(): Promise<void>
}

/** Starts a Node.js program and waits for the line that says it is ready. It ends with the test. */
export async function startProgram(
  t: Test,
  file: string,
  { args = [], env = {}, ready }: { args?: string[]; env?: Record<string, string>; ready: (line: string) => boolean },
): Promise<RunningProgram> {
  const child = spawn(process.execPath, [file, ...args], {
    env: { ...withoutSettings(), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const lines: string[] = []
  const errors: string[] = []
  const watchers = new Set<() => void>()
  const wake = () => {
    for (const watcher of watchers) watcher()
  }
  createInterface(child.stdout).on('line', (line) => {
    lines.push(line)
    wake()
  })
  createInterface(child.stderr).on('line', (line) => errors.push(line))
  const exited = once(child, 'exit').finally(wake)
  const program: RunningProgram = {
    process: child,
    lines,
    line: (wanted) =>
      new Promise((resolve, reject) => {
        const settle = (finish: () => void) => {
          watchers.delete(look)
          clearTimeout(timer)
          finish()
        }
        const fail = (what: string) =>
          settle(() => reject(new Error(`${file} ${what}\n${[...lines, ...errors].join('\n')}`)))
        const look = () => {
          const found = lines.find(wanted)
          if (found !== undefined) settle(() => resolve(found))
          else if (child.exitCode !== null || child.signalCode !== null)
            fail(`ended with ${child.exitCode ?? child.signalCode}`)
        }
        const timer = setTimeout(fail, PATIENCE, 'did not print the line that was awaited')
        watchers.add(look)
        look()
      }),
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE)
      await exited
      clearTimeout(timer)
    },
  }
  t.teardown(() => program.stop())
  await program.line(ready)
  return program
}

/** Runs a Node.js program to its end. */
export async function runProgram(
  file: string,
  { args = [], env = {}, input = '' }: { args?: string[]; env?: Record<string, string>; input?: string },
): Promise<{ code: number | null; output: string; errors: string }> {
  const child = spawn(process.execPath, [file, ...args], { env: { ...withoutSettings(), ...env } })
  let output = ''
  let errors = ''
  child.stdout.on('data', (chunk) => {
    output += chunk
  })
  child.stderr.on('data', (chunk) => {
    errors += chunk
  })
  child.stdin.end(input)
  const [code] = await once(child, 'close')
  return { code, output, errors }
}

/** The environment without anything that Postern reads, so that the machine's own settings change no test. */
function withoutSettings(): NodeJS.ProcessEnv {
  const names = ['ISSUER', 'PORT', 'HOST', 'DATABASE_URL', 'DATABASE_URL_FILE', 'DATA_DIR', 'LOG_LEVEL', 'RESOURCE']
  const others = Object.entries(process.env).filter(([name]) => !name.startsWith('POSTERN_') && !names.includes(name))
  return Object.fromEntries(others)
}
