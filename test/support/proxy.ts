import { join } from 'node:path'
import type { Test } from 'tap'
import { type RunningProgram, startProgram } from './child-process.ts'
import type { ProxyOptions } from './proxy-program.ts'

/** Starts a proxy that ends TLS on https://localhost:PORT. */
export async function startProxy(t: Test, options: ProxyOptions): Promise<RunningProgram> {
  return startProgram(t, join(import.meta.dirname, 'proxy-program.js'), {
    args: [JSON.stringify(options)],
    ready: (line) => line.startsWith('proxy listens'),
  })
}
