/**
 * `npm run bench`: measures Postern beside two bare limits and two other servers, round by round in turn. `--help` says
 * what can be asked. Absolute figures depend on the machine: read the ratios, which come from one run.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { availableParallelism, cpus, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import { type Cluster, startCluster, withClient } from './cluster.ts'
import { type Amount, Driver, measure } from './measure.ts'
import { OPERATIONS, type OperationName } from './operations.ts'
import { end, freePort, PINNING, startProgram } from './processes.ts'
import { type Circumstances, describe, type Measurement, nameOf } from './report.ts'
import { type Running, SERVERS, type Seeded, type ServerPlan, seedServer, startServer } from './servers.ts'
import { measureWave } from './wave.ts'

const CONNECTIONS = 32
const ROOT = join(import.meta.dirname, '..', '..')
const SERVER_CORE = 0
const DRIVER_CORE = 1

interface Options {
  quick?: true
  rounds?: number
  seconds?: number
  requests?: number
  rows?: number[]
  only?: OperationName[]
  server?: string[]
  processes: number
  delayMs?: number
  wave?: true
  profile?: string
  write?: true
}

const options = readOptions()
const { quick = false } = options
const rounds = options.rounds ?? (quick ? 3 : 5)
const amount: Amount = {
  connections: CONNECTIONS,
  seconds: options.seconds ?? (quick ? 0.3 : 3),
  requests: options.requests ?? Number.MAX_SAFE_INTEGER,
}
const sizes = [...new Set(options.rows ?? [10_000])]
/** Codes are made beforehand, and live for ten minutes. */
const codes = options.requests ?? (quick ? 400 : 4000)
const operations = options.only ?? (Object.keys(OPERATIONS) as OperationName[])
if (options.wave && sizes.length > 1) throw new Error('--wave takes one --rows')
const plans = SERVERS.filter(({ name }) =>
  options.wave ? name === 'postern' : (options.server?.includes(name) ?? true),
).map((plan) => (plan.name === 'postern' ? { ...plan, nodeOptions: profiling(options.profile) } : plan))
const startedAt = performance.now()

const cleanUps: (() => Promise<unknown>)[] = []
let interrupted = false
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (interrupted) process.exit(1)
    interrupted = true
    say('\nstopping …')
    cleanUp().then(() => process.exit(130))
  })
}
try {
  await run()
} catch (error) {
  if (!interrupted) throw error
} finally {
  await cleanUp()
}

async function run(): Promise<void> {
  const cluster = await startCluster()
  cleanUps.push(() => cluster.stop())
  const databasePort = options.delayMs === undefined ? undefined : await startDelay(cluster, options.delayMs)
  const driver = new Driver(DRIVER_CORE)
  cleanUps.push(() => driver.close())
  const seeded: Seeded[] = []
  for (const plan of plans) for (const rows of sizes) seeded.push(await seed(cluster, plan, rows))
  for (const { database } of seeded) await cluster.warm(database)
  if (options.wave) return runWaves(cluster, seeded[0] as Seeded, driver, databasePort)

  const servers: Running[] = []
  for (const one of seeded) {
    servers.push(await start(cluster, one, undefined, coresOf(one.plan)))
    if (databasePort === undefined) continue
    const variant = [one.variant, `+${options.delayMs} ms`].filter(Boolean).join(', ')
    servers.push(await start(cluster, { ...one, variant }, databasePort, coresOf(one.plan)))
  }
  const measurements = await measureAll(driver, cluster, servers)
  const processes = servers.map(({ plan, variant, startMilliseconds, memoryMebibytes }) => ({
    server: plan.name,
    variant,
    startMilliseconds,
    memoryMebibytes: memoryMebibytes(),
  }))
  const report = describe(measurements, processes, plans, await circumstances(cluster, databasePort))
  process.stdout.write(`\n${report}`)
  const isFull = process.argv.length === 2
  if (isFull || options.write) {
    const head = '# What was measured\n\nWritten by `npm run bench`. Read the ratios: they come from one run.\n\n'
    await writeFile(join(ROOT, 'bench', 'RESULTS.md'), head + report)
    say('written to bench/RESULTS.md')
  }
  say(`took ${Math.round((performance.now() - startedAt) / 1000)} s`)
}

/** Round by round in turn; the first round warms up, and doesn't count. */
async function measureAll(driver: Driver, cluster: Cluster, servers: Running[]): Promise<Measurement[]> {
  const measurements: Measurement[] = []
  for (let round = 0; round <= rounds; round += 1) {
    for (const operation of operations) {
      const line: string[] = []
      const inTurn = [...servers.slice(round % servers.length), ...servers.slice(0, round % servers.length)]
      for (const server of inTurn) {
        if (operation in server.plan.omitted) continue
        const requests = operation === 'code' ? codes : amount.requests
        const one = await measure(driver, cluster, server, operation, { ...amount, requests })
        if (round > 0) measurements.push(one)
        line.push(`${nameOf(server.plan.name, server.variant)} ${Math.round(one.rate)}`)
      }
      say(`${round === 0 ? 'warm-up' : `round ${round}/${rounds}`}  ${operation}: ${line.join(', ')}`)
    }
  }
  return measurements
}

/** With one core for server and passwords together, and with all. */
async function runWaves(
  cluster: Cluster,
  seeded: Seeded,
  driver: Driver,
  databasePort: number | undefined,
): Promise<void> {
  for (const core of PINNING ? [SERVER_CORE, undefined] : [undefined]) {
    const where = core === undefined ? 'free to use every core' : 'on one core'
    say(`Postern ${where}:`)
    const server = await start(cluster, seeded, databasePort, [core])
    const outcome = await measureWave(driver, cluster, server, rounds, amount, say)
    process.stdout.write(`Postern ${where}: in a wave of sign-ins, introspection keeps ${outcome}\n`)
    await server.stop()
  }
}

async function seed(cluster: Cluster, plan: ServerPlan, rows: number): Promise<Seeded> {
  const size = `${rows.toLocaleString('en')} rows`
  say(`${plan.name}: storing ${size} of families and tokens`)
  const from = performance.now()
  return seedServer(cluster, plan, sizes.length === 1 ? '' : size, rows, (done) => {
    const seconds = Math.round((performance.now() - from) / 1000)
    if (rows > 100_000) say(`${plan.name}: ${done.toLocaleString('en')} rows after ${seconds} s`)
  })
}

async function start(
  cluster: Cluster,
  seeded: Seeded,
  databasePort: number | undefined,
  cores: (number | undefined)[],
): Promise<Running> {
  const server = await startServer(cluster, seeded, databasePort, cores)
  cleanUps.push(() => server.stop())
  return server
}

/** What makes Node.js write a CPU profile at its end. */
function profiling(folder: string | undefined): string[] {
  return folder === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${resolve(folder)}`]
}

/** Several processes take turns at the cores, which they share with the driver. */
function coresOf({ name }: ServerPlan): number[] {
  if (name !== 'postern' || options.processes === 1) return [SERVER_CORE]
  return Array.from({ length: options.processes }, (_, number) => number % availableParallelism())
}

async function startDelay(cluster: Cluster, milliseconds: number): Promise<number> {
  const port = await freePort()
  const child: ChildProcess = startProgram(undefined, 'bench/delay.js', {}, [
    String(port),
    cluster.socket,
    String(milliseconds),
  ])
  cleanUps.push(() => end(child))
  await once(child, 'message')
  return port
}

async function circumstances(cluster: Cluster, databasePort: number | undefined): Promise<Circumstances> {
  const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`
  const versionOf = (name: string) =>
    `${name} ${JSON.parse(readFileSync(join(ROOT, 'node_modules', name, 'package.json'), 'utf8')).version}`
  const libraries = ['fastify', 'pg', 'oidc-provider', '@node-oauth/oauth2-server'].map(versionOf)
  const pins = PINNING ? `server on core ${SERVER_CORE}, driver on core ${DRIVER_CORE}` : 'no process pinned'
  const per = options.requests === undefined ? `${amount.seconds} s` : `${amount.requests} operations`
  return {
    machine: `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, ${memory}, ${process.platform}`,
    versions: `Node.js ${process.versions.node}, PostgreSQL ${cluster.version} with fsync, ${libraries.join(', ')}`,
    settings: [
      `${CONNECTIONS} connections, ${rounds === 1 ? 'one round' : `medians of ${rounds} rounds`} of ${per} each`,
      `${sizes.map((rows) => rows.toLocaleString('en')).join(' and ')} families and tokens`,
      pins,
      ...(options.processes === 1 ? [] : [`${options.processes} processes of Postern`]),
      ...(databasePort === undefined ? [] : [await roundTrip(cluster, databasePort)]),
    ].join('; '),
  }
}

/** What the delay really is: timers are coarse. */
async function roundTrip(cluster: Cluster, databasePort: number): Promise<string> {
  const timeOf = (port?: number) =>
    withClient(cluster.urlOf('postern', port), async (client) => {
      const from = performance.now()
      for (let n = 0; n < 100; n += 1) await client.query('select 1')
      return (performance.now() - from) / 100
    })
  const [direct, delayed] = [await timeOf(), await timeOf(databasePort)]
  return `+${options.delayMs} ms: a round trip to Postgres takes ${delayed.toFixed(2)} ms instead of ${direct.toFixed(2)} ms`
}

function readOptions(): Options {
  const list = (allowed: string[]) => (text: string, earlier: string[] | undefined) => {
    if (!allowed.includes(text)) throw new InvalidArgumentError(`It is one of: ${allowed.join(', ')}.`)
    return [...(earlier ?? []), text]
  }
  const above = (least: number, isWhole: boolean) => (text: string) => {
    const value = Number(text)
    if (!(value >= least) || (isWhole && !Number.isInteger(value)))
      throw new InvalidArgumentError(`It is a number from ${least} on.`)
    return value
  }
  const size = (text: string, earlier: number[] | undefined) => [...(earlier ?? []), above(1, true)(text)]
  const names = Object.keys(OPERATIONS)
  const servers = SERVERS.map(({ name }) => name)
  return new Command('npm run bench --')
    .description(
      'Measures Postern beside two bare limits and two other servers, each a process of its own with a database of ' +
        'its own in one Postgres with fsync, round by round in turn. A run without options takes about a quarter of ' +
        'an hour, and writes bench/RESULTS.md.',
    )
    .option('--quick', 'a look, in under two minutes')
    .option('--rounds <N>', 'rounds that count (default: 5; quick: 3)', above(1, true))
    .option('--seconds <N>', 'length of each measurement (default: 3; quick: 0.3)', above(0.1, false))
    .option('--requests <N>', 'most operations in each measurement', above(1, true))
    .option(
      '--rows <N>',
      'families and tokens that are stored beforehand (default: 10000); repeated, each server is measured with each',
      size,
    )
    .option('--only <OPERATION>', `one operation; may be repeated: ${names.join(', ')}`, list(names))
    .option('--server <NAME>', `one server; may be repeated: ${servers.join(', ')}`, list(servers))
    .option('--processes <N>', 'processes of Postern, on all cores, in turn', above(1, true), 1)
    .option(
      '--delay-ms <N>',
      'measure each server twice: also with round trips to Postgres longer by this',
      above(0, false),
    )
    .addOption(
      new Option('--wave', 'instead: what introspection keeps of its rate while 50 people sign in').conflicts([
        'only',
        'server',
        'processes',
        'write',
      ]),
    )
    .option('--profile <FOLDER>', 'write a CPU profile of Postern there, for the tools of Chromium')
    .option('--write', 'write bench/RESULTS.md from this run, too')
    .addHelpText(
      'after',
      '\nExamples:\n' +
        '  npm run bench -- --quick\n' +
        '  npm run bench -- --only introspect-user --rows 10000 --rows 10000000\n' +
        '  npm run bench -- --processes 2 --server postern\n' +
        '  npm run bench -- --delay-ms 1 --only introspect-user\n' +
        '  npm run bench -- --wave\n' +
        '\nThe server has one core and the driver another, by taskset (Linux); elsewhere the\n' +
        'system decides. CPU times and memory are read from /proc.',
    )
    .parse()
    .opts<Options>()
}

function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

async function cleanUp(): Promise<void> {
  for (const one of cleanUps.splice(0).reverse()) await one()
}
