import { join } from 'node:path'
import type { Test } from 'tap'
import { type RunningProgram, runProgram, startProgram } from './child-process.ts'
import { createTestDatabase } from './database.ts'
import { freePort, PASSWORD } from './postern.ts'

const CLI = join(import.meta.dirname, '..', '..', 'src', 'cli.js')

/** What `postern resource add --json` prints. */
export interface AddedResource {
  resource: string
  client_id: string
  client_secret: string
  scopes: string[]
  protected_resource_metadata: Record<string, unknown>
}

/** Postern as it is deployed: `postern serve` in a process of its own, and the command beside it. */
export interface PosternProcess {
  issuer: string
  /** where it listens, which is behind the proxy when the issuer is elsewhere */
  port: number
  db: Awaited<ReturnType<typeof createTestDatabase>>['db']
  server: RunningProgram
  /** Runs `postern …`, and gives what it printed. @throws {Error} when it fails */
  command(args: string[], input?: string): Promise<string>
  addResource(uri: string): Promise<AddedResource>
  /** Starts another process on the same database, with the same issuer. @returns its own address */
  startReplica(): Promise<string>
}

/** Starts Postern in a process of its own, with an empty database and the user `alice`. */
export async function startPosternProcess(
  t: Test,
  settings: Record<string, string> = {},
  port?: number,
): Promise<PosternProcess> {
  const { url, db } = await createTestDatabase(t)
  const listensOn = port ?? (await freePort())
  const env: Record<string, string> = {
    HOST: '127.0.0.1',
    PORT: String(listensOn),
    DATABASE_URL: url,
    LOG_LEVEL: 'info',
    ...settings,
  }
  const command = async (args: string[], input?: string) => {
    const { code, output, errors } = await runProgram(CLI, { args, env, ...(input === undefined ? {} : { input }) })
    if (code !== 0) throw new Error(`postern ${args.join(' ')} ended with ${code}: ${errors}${output}`)
    return output
  }
  const [server] = await Promise.all([
    startProgram(t, CLI, { args: ['serve'], env, ready: (line) => line.includes('"event":"started"') }),
    command(['user', 'add', 'alice'], `${PASSWORD}\n`),
  ])
  return {
    issuer: settings.ISSUER ?? `http://localhost:${listensOn}`,
    port: listensOn,
    db,
    server,
    command,
    startReplica: async () => {
      const replicaPort = String(await freePort())
      const issuer = settings.ISSUER ?? `http://localhost:${listensOn}`
      const replica = { ...env, PORT: replicaPort, ISSUER: issuer }
      await startProgram(t, CLI, {
        args: ['serve'],
        env: replica,
        ready: (line) => line.includes('"event":"started"'),
      })
      return `http://localhost:${replicaPort}`
    },
    addResource: async (uri) => {
      const scopes = ['--scope', 'read=Read your notes', '--scope', 'write=Add notes']
      return JSON.parse(await command(['resource', 'add', uri, '--name', 'Notes', ...scopes, '--json']))
    },
  }
}
