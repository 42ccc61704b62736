import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { doctor } from '../../src/admin/doctor.ts'
import type { Finding } from '../../src/admin/finding.ts'
import { type Config, readConfig } from '../../src/config.ts'
import { protectedResourceMetadata } from '../../src/protocol/metadata.ts'
import { setUserDisabled } from '../../src/store/user.ts'
import { administrate } from '../support/database.ts'
import { addResource, freePort, startTestPostern, type TestPostern } from '../support/postern.ts'
import { commandIn } from './command.ts'

t.jobs = 4

/** What doctor finds, by the name of the check. */
async function examine(config: Config, mcpUrl?: string): Promise<Record<string, Finding>> {
  const findings = (await doctor(() => config, mcpUrl)).json as Finding[]
  return Object.fromEntries(findings.map((finding) => [finding.check, finding]))
}

function environmentOf({ issuer, databaseUrl, context }: TestPostern) {
  return { ISSUER: issuer, DATABASE_URL: databaseUrl, PORT: String(context.config.port) }
}

type Answers = Record<string, (response: ServerResponse) => void>

/** A web server that answers 404 but at the paths that are given. */
async function startServer(t: Test, answersOf: (origin: string) => Answers): Promise<string> {
  const server = createServer((request, response) => {
    const answer = answers[request.url ?? '']
    if (answer === undefined) response.writeHead(404).end()
    else answer(response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const answers = answersOf(origin)
  return origin
}

const json = (document: unknown) => (response: ServerResponse) => {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(document))
}

const challenge = (header: string | undefined) => (response: ServerResponse) => {
  response.writeHead(401, header === undefined ? {} : { 'www-authenticate': header }).end()
}

/** An MCP server at /mcp as it should be, but for the answers that are given. */
async function startMcpServer(
  t: Test,
  issuer: string,
  other: (origin: string) => Answers = () => ({}),
): Promise<string> {
  const origin = await startServer(t, (origin) => {
    const { url, document } = protectedResourceMetadata(`${origin}/mcp`, null, issuer, ['read'])
    return {
      '/mcp': challenge(`Basic realm="x", Bearer scope="read", resource_metadata="${url}"`),
      '/.well-known/oauth-protected-resource/mcp': json(document),
      ...other(origin),
    }
  })
  return `${origin}/mcp`
}

t.test('when all is well, every check is ok', { buffered: true }, async (t) => {
  const postern = await startTestPostern(t)
  const mcpUrl = await startMcpServer(t, postern.issuer)
  await addResource(postern, mcpUrl, [{ name: 'read', description: 'Read' }])
  const run = commandIn(environmentOf(postern))
  const { code, output, errors } = await run(['doctor', mcpUrl])
  t.same({ code, errors }, { code: 0, errors: '' })
  const checks = ['configuration', 'database', 'clock', 'migrations', 'users', 'resources', 'server', 'health']
  const mcpChecks = ['challenge', 'metadata', 'resource', 'authorization server', 'added', 'scopes']
  const lines = output.trimEnd().split('\n')
  t.same(
    lines.map((line) => /^ok {7}(.*?) {2}/.exec(line)?.[1]),
    [...checks, ...mcpChecks],
  )
  const asJson = await run(['doctor', '--json'])
  t.equal(asJson.code, 0)
  const findings: Finding[] = JSON.parse(asJson.output)
  t.same(
    findings.map(({ check }) => check),
    checks,
  )
  t.ok(findings.every(({ ok, detail, advice }) => ok && detail !== '' && advice === null))
})

t.test('problems are named with what to do, and the exit code is 1', { buffered: true }, async (t) => {
  const postern = await startTestPostern(t, {}, { bare: true })
  const run = commandIn({ ...environmentOf(postern), ISSUER: `http://localhost:${await freePort()}` })
  const { code, output, errors } = await run(['doctor'])
  t.equal(code, 1)
  t.equal(errors, '3 problems found.\n')
  t.match(output, /\nproblem {2}users +nobody can sign in\n +→ postern user add NAME --admin\n/)
  t.match(output, /\nproblem {2}resources +no resource server.*\n +→ postern resource add URL\n/)
  t.match(output, /\nproblem {2}server +http:\S+: connection refused\n +→ start it with postern serve/)
})

t.test('bad settings and a database that is away are findings, too', { buffered: true }, async (t) => {
  const unreadable = await doctor(() => readConfig({ PORT: 'x', POSTERN_FROB: '1' }))
  t.match(unreadable.json, [
    { check: 'configuration', ok: false, detail: /POSTERN_FROB/ },
    { check: 'configuration', ok: false, detail: /PORT/ },
  ])
  t.equal(unreadable.problems, 2)
  const port = String(await freePort())
  const away = await examine(readConfig({ PORT: port, DATABASE_URL: 'postgres://postern@127.0.0.1:1/postern' }))
  t.match(away, { database: { ok: false, detail: /ECONNREFUSED/, advice: /DATABASE_URL/ }, server: { ok: false } })
})

t.test('a database that has to be migrated is told from one that is up to date', { buffered: true }, async (t) => {
  const { context, databaseUrl } = await startTestPostern(t)
  await administrate(databaseUrl, 'delete from kysely_migration where name = (select max(name) from kysely_migration)')
  const found = await examine(context.config)
  t.match(found.migrations, { ok: false, detail: '1 migration to apply', advice: /postern migrate/ })
  t.equal(found.users, undefined)
})

t.test('users who are all disabled cannot sign in', { buffered: true }, async (t) => {
  const { context, db } = await startTestPostern(t)
  await setUserDisabled(db, 'alice', true)
  t.match((await examine(context.config)).users, { ok: false, detail: 'nobody can sign in' })
})

t.test('an https issuer without POSTERN_TRUST_PROXY is a problem', { buffered: true }, async (t) => {
  const { context } = await startTestPostern(t)
  const config = { ...context.config, issuer: 'https://auth.invalid' }
  t.match(await examine(config), { proxy: { ok: false, advice: /POSTERN_TRUST_PROXY/ }, server: { ok: false } })
  t.match((await examine({ ...config, trustProxy: 1 })).proxy, { ok: true })
})

t.test('another program, or another issuer, at the address of the server is found', { buffered: true }, async (t) => {
  const { context } = await startTestPostern(t)
  const at = async (answers: Answers) => {
    const issuer = `${await startServer(t, () => answers)}/auth`
    return (await examine({ ...context.config, issuer, basePath: '/auth' })).server
  }
  const path = '/.well-known/oauth-authorization-server/auth'
  t.match(await at({}), { ok: false, detail: /answers 404/, advice: /proxy pass/ })
  const html = (response: ServerResponse) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>')
  t.match(await at({ [path]: html }), { ok: false, detail: /JSON object \(text\/html\)/ })
  const moved = (response: ServerResponse) => response.writeHead(301, { location: 'https://x.example.com/' }).end()
  t.match(await at({ [path]: moved }), { ok: false, detail: 'answers 301 to https://x.example.com/' })
  t.match(await at({ [path]: json({ issuer: 'https://x.example.com' }) }), { ok: false, detail: /"https:\/\/x\./ })
  const base = await startServer(t, (origin) => ({ [path]: json({ issuer: `${origin}/auth/` }) }))
  const { server } = await examine({ ...context.config, issuer: `${base}/auth`, basePath: '/auth' })
  t.match(server, { ok: false, detail: `"${base}/auth/", not "${base}/auth": they differ by the slash at the end` })
})

t.test('what is wrong with an MCP server is said as a client would see it', { buffered: true }, async (t) => {
  const postern = await startTestPostern(t)
  const { issuer, context } = postern
  const scopes = [{ name: 'read', description: 'Read' }]
  const at = async (other: (origin: string) => Answers) => {
    const url = await startMcpServer(t, issuer, other)
    await addResource(postern, url, scopes)
    return examine(context.config, url)
  }
  const wellKnown = '/.well-known/oauth-protected-resource/mcp'

  t.match(await at(() => ({ '/mcp': json({}) })), {
    challenge: { ok: false, detail: 'it answers 200 to a request without a token' },
    metadata: { ok: true },
  })
  t.match((await at(() => ({ '/mcp': challenge(undefined) }))).challenge, { ok: false, detail: /without WWW-Auth/ })
  t.match((await at(() => ({ '/mcp': challenge('Bearer realm="x"') }))).challenge, {
    ok: false,
    advice: /resource_metadata="http:\S+\/\.well-known\/oauth-protected-resource\/mcp"/,
  })
  const nowhere = await at((origin) => ({ '/mcp': challenge(`Bearer resource_metadata=${origin}/nowhere`) }))
  t.match(nowhere.metadata, { ok: false, detail: /\/nowhere answers 404$/ })
  t.equal(nowhere.resource, undefined)

  const atRoot = await at((origin) => ({
    '/mcp': challenge('Bearer'),
    [wellKnown]: (response) => response.writeHead(404).end(),
    '/.well-known/oauth-protected-resource': json({ resource: `${origin}/mcp`, authorization_servers: [issuer] }),
  }))
  t.match(atRoot, { challenge: { ok: false }, metadata: { ok: true }, resource: { ok: true }, scopes: { ok: true } })

  const different = await at((origin) => ({
    [wellKnown]: json({
      resource: `${origin}/mcp/`,
      authorization_servers: [`${issuer}/`],
      scopes_supported: ['read', 'admin'],
    }),
  }))
  t.match(different, {
    resource: { ok: false, detail: /they differ by the slash at the end/ },
    'authorization server': { ok: false, detail: `"${issuer}/", not "${issuer}": they differ by the slash` },
    added: { ok: true },
    scopes: { ok: false, detail: 'it names admin, unknown here; known are: read' },
  })
  const broken = await at(() => ({ [wellKnown]: json({ resource: 7 }) }))
  t.match(broken, { resource: { ok: false, detail: /says 7, not/ }, 'authorization server': { ok: false } })

  const unknown = await startMcpServer(t, issuer)
  t.match((await examine(context.config, unknown)).added, { ok: false, advice: `postern resource add ${unknown}` })
  t.match((await examine(context.config, 'mcp.example.com'))['MCP server'], { ok: false })
  const away = `http://127.0.0.1:${await freePort()}/mcp`
  t.match((await examine(context.config, away))['MCP server'], { ok: false, detail: /connection refused/ })
})
