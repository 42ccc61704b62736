import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { type RunningProgram, startProgram } from './child-process.ts'

const SERVER = join(import.meta.dirname, '..', '..', '..', 'examples', 'mcp-server', 'server.js')

const ready = (line: string) => line.startsWith('MCP server ')

/** Starts examples/mcp-server with the file that `postern resource add --json` printed. */
export async function startExampleServer(
  t: Test,
  added: object,
  env: Record<string, string> = {},
): Promise<RunningProgram> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-example-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const file = join(folder, 'resource.json')
  await writeFile(file, JSON.stringify(added), { mode: 0o600 })
  return startProgram(t, SERVER, { args: [file], env, ready })
}

/** The same, with its facts in the environment. */
export async function startExampleServerFromEnvironment(
  t: Test,
  facts: { RESOURCE: string; ISSUER: string; CLIENT_ID: string; CLIENT_SECRET: string },
): Promise<RunningProgram> {
  return startProgram(t, SERVER, { env: facts, ready })
}
