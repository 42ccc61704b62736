import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { SESSION } from './accounts.ts'
import type { Cluster } from './cluster.ts'
import { authorizationPath, type OperationName, type Target } from './operations.ts'
import { cpuOf, end, freePort, memoryOf, startProgram } from './processes.ts'
import { type Callers, LIMIT, OAUTH2_SERVER, OIDC_PROVIDER, POSTERN, type Seed, seedTokens } from './seed.ts'
import { signIn } from './sign-in.ts'

/** What is measured, and how to start it. */
export interface ServerPlan {
  name: string
  /** what it is, for the table */
  meaning: string
  /** compiled, from the folder of the build */
  file: string
  args?: string[]
  environment?: Record<string, string>
  nodeOptions?: string[]
  seed: Seed
  paths: Target['paths']
  /** signs people in itself; otherwise it has the session of the bench */
  hasSignIn: boolean
  /** operations that it can't do, with the reason */
  omitted: Partial<Record<OperationName, string>>
}

const PLAIN_PATHS = { introspect: '/introspect', token: '/token', authorize: '/authorize', register: '/register' }

const LIMIT_PLAN = { seed: LIMIT, paths: PLAIN_PATHS, hasSignIn: false, omitted: {} }

/** In the order of the tables. */
export const SERVERS: ServerPlan[] = [
  {
    name: 'postern',
    meaning: 'this server, as the image starts it',
    file: 'src/cli.js',
    args: ['serve'],
    environment: {
      // as in the Dockerfile
      NODE_OPTIONS: '--max-semi-space-size=4',
      MALLOC_MMAP_THRESHOLD_: '1048576',
      UV_THREADPOOL_SIZE: '8',
    },
    seed: POSTERN,
    paths: PLAIN_PATHS,
    hasSignIn: true,
    omitted: {},
  },
  {
    name: 'one-statement',
    meaning: 'bare limit: Fastify, one named statement for each request',
    file: 'bench/limits/one-statement.js',
    ...LIMIT_PLAN,
  },
  {
    name: 'batched',
    meaning: 'bare limit: Fastify, the statements of one turn of the event loop in one',
    file: 'bench/limits/batched.js',
    ...LIMIT_PLAN,
  },
  {
    name: 'oidc-provider',
    meaning: 'node-oidc-provider on a straightforward Postgres adapter; its three clients are configured, not stored',
    file: 'bench/peers/oidc-provider.js',
    seed: OIDC_PROVIDER,
    paths: { introspect: '/token/introspection', token: '/token', authorize: '/auth', register: '/reg' },
    hasSignIn: true,
    omitted: {},
  },
  {
    name: 'oauth2-server',
    meaning:
      '@node-oauth/oauth2-server on Fastify with a small Postgres model; introspection is the thinnest on that model',
    file: 'bench/peers/oauth2-server.js',
    seed: OAUTH2_SERVER,
    paths: PLAIN_PATHS,
    hasSignIn: false,
    omitted: { register: 'the library has no registration' },
  },
]

/** What each server is compared with. */
export const LIMITS = ['one-statement', 'batched']
export const PEERS = ['oidc-provider', 'oauth2-server']

/** A server with its data. */
export interface Seeded {
  plan: ServerPlan
  /** see `Measurement` */
  variant: string
  database: string
  callers: Callers
  counts: { userTokens: number; clientTokens: number }
}

/** Makes a server's database, and stores its accounts and `rows` tokens. */
export async function seedServer(
  cluster: Cluster,
  plan: ServerPlan,
  variant: string,
  rows: number,
  onProgress: (done: number) => void,
): Promise<Seeded> {
  const database = `bench_${plan.name.replaceAll('-', '_')}_${rows}`
  await cluster.createDatabase(database)
  const url = cluster.urlOf(database)
  const callers = await plan.seed.accounts(url)
  return { plan, variant, database, callers, counts: await seedTokens(url, plan.seed, callers, rows, onProgress) }
}

/** A server that runs: one process, or several on the same database. */
export interface Running {
  plan: ServerPlan
  variant: string
  database: string
  target: Target
  /** from the start of the process to the first answer */
  startMilliseconds: number
  cpuMicroseconds(): number | undefined
  /** of all its processes */
  memoryMebibytes(): number | undefined
  stop(): Promise<void>
}

/**
 * Starts a server on its database, and signs its person in.
 *
 * @param databasePort of a proxy in front of Postgres
 * @param cores of each of its processes
 */
export async function startServer(
  cluster: Cluster,
  { plan, variant, database, callers, counts }: Seeded,
  databasePort: number | undefined,
  cores: (number | undefined)[],
): Promise<Running> {
  const databaseUrl = cluster.urlOf(database, databasePort)
  const children: ChildProcess[] = []
  const ports: number[] = []
  let startMilliseconds = 0
  const stop = async () => {
    await Promise.all(children.map(end))
  }
  try {
    for (const core of cores) {
      const port = await freePort()
      ports.push(port)
      const startedAt = performance.now()
      const child = startProgram(
        core,
        plan.file,
        {
          PORT: String(port),
          HOST: '127.0.0.1',
          ISSUER: `http://localhost:${ports[0]}`,
          DATABASE_URL: databaseUrl,
          LOG_LEVEL: 'silent',
          ...plan.environment,
        },
        plan.args,
        plan.nodeOptions,
      )
      children.push(child)
      await firstAnswer(child, plan.name, `http://127.0.0.1:${port}/health/live`)
      if (ports.length === 1) startMilliseconds = performance.now() - startedAt
    }
    const address = `http://localhost:${ports[0]}${authorizationPath(plan.paths.authorize, callers.application)}`
    const cookie = plan.hasSignIn ? await signIn(address) : `session=${SESSION}`
    const isPostern = plan.seed === POSTERN
    const pids = children.map(({ pid }) => pid as number)
    return {
      plan,
      variant,
      database,
      target: { ports, paths: plan.paths, ...callers, ...counts, cookie, isPostern },
      startMilliseconds,
      cpuMicroseconds: () => sum(pids.map(cpuOf)),
      memoryMebibytes: () => sum(pids.map(memoryOf)),
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

/** Waits until a server answers. @throws when its process ends before */
async function firstAnswer(child: ChildProcess, name: string, address: string): Promise<void> {
  let said = ''
  child.stderr?.on('data', (chunk) => {
    said = (said + chunk).slice(-2000)
  })
  const ended = once(child, 'exit').then(() => {
    throw new Error(`${name} ended: ${said}`)
  })
  ended.catch(() => {}) // it also ends at the end
  const answered = async () => {
    while (child.exitCode === null) {
      const isThere = await fetch(address).then(
        async (answer) => (await answer.text()) !== '' && answer.ok,
        () => false,
      )
      if (isThere) return
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  await Promise.race([answered(), ended])
}

function sum(values: (number | undefined)[]): number | undefined {
  let total = 0
  for (const value of values) {
    if (value === undefined) return undefined
    total += value
  }
  return total
}
