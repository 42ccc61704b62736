import { type Config, ConfigError } from '../config.ts'
import type { Context } from '../context.ts'
import { databaseProblem, type ResourceRow, readDatabaseClock, readDatabaseVersion } from '../store/database.ts'
import { listPendingMigrations } from '../store/migrate.ts'
import { listResources } from '../store/resource.ts'
import { listUsers } from '../store/user.ts'
import { withUnmigratedDatabase } from './database.ts'
import { bad, describeAnswer, difference, type Finding, good, visit } from './finding.ts'
import { examineMcpServer } from './mcp-server.ts'
import { AdminError, type Answer, count } from './output.ts'

/** Clocks that differ by more than this make times in logs and lifetimes of tokens misleading. */
const CLOCK_TOLERANCE_SECONDS = 5

/** `postern doctor`: looks at everything that has to be right for a client to connect. */
export async function doctor(readConfig: () => Config, mcpUrl?: string): Promise<Answer & { problems: number }> {
  const findings = await examine(readConfig, mcpUrl)
  const width = Math.max(...findings.map(({ check }) => check.length))
  const text = findings.flatMap(({ check, ok, detail, advice }) => [
    `${ok ? 'ok     ' : 'problem'}  ${check.padEnd(width)}  ${detail}`,
    ...(advice === null ? [] : [`${' '.repeat(width + 11)}→ ${advice}`]),
  ])
  return { json: findings, text, problems: findings.filter(({ ok }) => !ok).length }
}

/** @throws {AdminError} for the exit code, once the answer is printed */
export function demandHealth({ problems }: { problems: number }): void {
  if (problems > 0) throw new AdminError(`${count(problems, 'problem')} found.`)
}

async function examine(readConfig: () => Config, mcpUrl: string | undefined): Promise<Finding[]> {
  let config: Config
  try {
    config = readConfig()
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.problems.map((problem) => bad('configuration', problem, 'postern serve --help lists all settings'))
  }
  const stored = await examineDatabase(config)
  const findings = [
    good('configuration', `the issuer is ${config.issuer}`),
    ...proxyFinding(config),
    ...stored.findings,
  ]
  findings.push(...(await examineServer(config)))
  if (mcpUrl !== undefined) findings.push(...(await examineMcpServer(mcpUrl, config.issuer, stored.resources)))
  return findings
}

/** Postern itself speaks http: an https issuer is behind a proxy, whose address would stand for everybody. */
function proxyFinding({ issuer, trustProxy }: Config): Finding[] {
  if (!issuer.startsWith('https:')) return []
  if (trustProxy !== false) return [good('proxy', `POSTERN_TRUST_PROXY=${String(trustProxy)}`)]
  return [
    bad(
      'proxy',
      'ISSUER is https, so there is a proxy; without POSTERN_TRUST_PROXY all requests count as coming from its address',
      'set POSTERN_TRUST_PROXY=1, or the number or addresses of the proxies',
    ),
  ]
}

/** `resources` is `undefined` when the database can't say. */
type Stored = { findings: Finding[]; resources: ResourceRow[] | undefined }

async function examineDatabase(config: Config): Promise<Stored> {
  try {
    return await withUnmigratedDatabase(config, (db) => examineStored(config, db))
  } catch (error) {
    const advice =
      config.databaseUrl === undefined
        ? 'put this right, or set DATABASE_URL'
        : 'start Postgres, or correct DATABASE_URL'
    return { findings: [bad('database', databaseProblem(error), advice)], resources: undefined }
  }
}

async function examineStored(config: Config, db: Context['db']): Promise<Stored> {
  const place = config.databaseUrl === undefined ? `embedded in ${config.dataDirectory}` : 'of DATABASE_URL'
  const findings = [good('database', `PostgreSQL ${await readDatabaseVersion(db)}, ${place}`)]
  findings.push(await examineClock(db))
  const pending = await listPendingMigrations(db)
  if (pending.length > 0) {
    findings.push(
      bad('migrations', `${count(pending.length, 'migration')} to apply`, 'run postern migrate, or start the server'),
    )
    return { findings, resources: undefined }
  }
  findings.push(good('migrations', 'up to date'))
  const users = (await listUsers(db)).filter((user) => user.disabled_at === null)
  findings.push(
    users.length > 0
      ? good('users', `${count(users.length, 'user')} can sign in`)
      : bad('users', 'nobody can sign in', 'postern user add NAME --admin'),
  )
  const resources = await listResources(db)
  const standard = resources.find((resource) => resource.is_default)
  findings.push(
    standard === undefined
      ? bad(
          'resources',
          'no resource server has been added: there is nothing that tokens could be for',
          'postern resource add URL',
        )
      : good('resources', `${count(resources.length, 'resource server')}, by default ${standard.uri}`),
  )
  return { findings, resources }
}

async function examineClock(db: Context['db']): Promise<Finding> {
  await readDatabaseClock(db) // so that the next one is quick
  const before = Date.now()
  const clock = await readDatabaseClock(db)
  const apart = Math.abs(clock.getTime() - (before + Date.now()) / 2) / 1000
  const detail = `this machine and the database are ${apart.toFixed(apart < 1 ? 3 : 0)} seconds apart`
  if (apart <= CLOCK_TOLERANCE_SECONDS) return good('clock', detail)
  return bad('clock', detail, 'synchronise both with NTP')
}

/** The server as clients reach it: at its public address, through every proxy. */
async function examineServer({ issuer, basePath }: Config): Promise<Finding[]> {
  const url = `${new URL(issuer).origin}/.well-known/oauth-authorization-server${basePath}`
  const answer = await visit(url)
  if (typeof answer === 'string') {
    return [bad('server', `${url}: ${answer}`, 'start it with postern serve; else look at DNS, TLS and the proxy')]
  }
  const passOn = `let the proxy pass ${new URL(url).pathname} and everything below ISSUER to Postern, or correct ISSUER`
  if (answer.document === undefined) return [bad('server', `${url} ${describeAnswer(answer)}`, passOn)]
  const said = answer.document.issuer
  if (said !== issuer) {
    return [
      bad(
        'server',
        `${url} says issuer ${difference(said, issuer)}`,
        'give the server and this command the same ISSUER',
      ),
    ]
  }
  const ready = await visit(`${issuer}/health/ready`)
  const finding = good('server', `answers at ${issuer}`)
  if (typeof ready === 'string') return [finding, bad('health', `${issuer}/health/ready: ${ready}`, passOn)]
  if (ready.status === 200) return [finding, good('health', 'ready')]
  return [finding, bad('health', `${issuer}/health/ready ${describeAnswer(ready)}`, 'the log of the server says why')]
}
