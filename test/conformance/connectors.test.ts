/**
 * What shipping MCP clients do (test/support/connectors.ts), from the MCP server's address that a person types to a
 * refreshed token: each looks for metadata in its own order, registers, authorizes, redeems and refreshes with its
 * own habits. The MCP server is examples/mcp-server.
 */
import t, { type Test } from 'tap'
import { protectedResourceMetadata } from '../../src/protocol/metadata.ts'
import { ConnectorRun } from '../support/connector-run.ts'
import {
  CLAUDE_AI,
  CLAUDE_CODE,
  CODEX_CLI,
  CONNECTORS,
  type Connector,
  CURSOR,
  GEMINI_CLI,
  MCP_REMOTE,
  VS_CODE,
} from '../support/connectors.ts'
import { letTimePass } from '../support/database.ts'
import { startExampleServer } from '../support/example-server.ts'
import { pkce } from '../support/flow.ts'
import { Person, textOf } from '../support/person.ts'
import { addResource, addUser, freePort, startTestPostern, type TestPostern } from '../support/postern.ts'

const SCOPES = [
  { name: 'read', description: 'Read your notes' },
  { name: 'write', description: 'Add notes' },
]

/** Postern, and the example MCP server as its first and so default resource. */
async function startBoth(
  t: Test,
  { issuerPath = '', resourcePath = '/mcp' }: { issuerPath?: string; resourcePath?: string },
): Promise<{ postern: TestPostern; url: string }> {
  const port = await freePort()
  const options = { port, issuer: `http://localhost:${port}${issuerPath}` }
  const postern = await startTestPostern(t, options, { bare: true })
  await addUser(postern, 'alice')
  const url = `http://localhost:${await freePort()}${resourcePath}`
  const { id, secret } = await addResource(postern, url, SCOPES)
  await startExampleServer(t, {
    client_id: id,
    client_secret: secret,
    protected_resource_metadata: protectedResourceMetadata(url, 'Notes', postern.issuer, ['read', 'write']).document,
  })
  return { postern, url }
}

/** From nothing to the first tokens. */
async function connect(t: Test, connector: Connector, url: string, person = new Person()) {
  const run = await ConnectorRun.start(t, connector, url)
  const { verifier, challenge } = pkce()
  const code = run.readAnswer(await person.authorize(run.authorizeUrl(challenge)))
  const { status, body } = await run.redeem(code, verifier)
  t.equal(status, 200)
  t.equal(body.scope, 'read write')
  return { run, tokens: body as Record<string, string> }
}

/** The status with which the MCP server answers a request that has the token. */
async function statusAt(url: string, accessToken: unknown): Promise<number> {
  const response = await fetch(url, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${accessToken}`,
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list', params: {} }),
  })
  await response.text()
  return response.status
}

for (const issuerPath of ['', '/auth']) {
  t.test(`an issuer with the path "${issuerPath}"`, async (t) => {
    const { url } = await startBoth(t, { issuerPath })
    const person = new Person() // stays signed in
    for (const connector of CONNECTORS) {
      t.test(`${connector.name} (as of ${connector.seen}) connects and refreshes`, async (t) => {
        const { run, tokens } = await connect(t, connector, url, person)
        t.equal(await statusAt(url, tokens.access_token), 200)
        const refreshed = await run.refresh(tokens.refresh_token)
        t.equal(refreshed.status, 200)
        t.equal(refreshed.body.scope, 'read write')
        t.not(refreshed.body.refresh_token, tokens.refresh_token)
        t.equal(await statusAt(url, refreshed.body.access_token), 200)
        t.equal(await statusAt(url, tokens.access_token), 401, 'the superseded access token has ended')
      })
    }
  })
}

t.test('habits of single connectors', async (t) => {
  const { postern, url } = await startBoth(t, {})

  t.test('Claude.ai posts consent twice: two redirects, each with a code that works', async (t) => {
    const person = new Person()
    await connect(t, CLAUDE_AI, url, person) // signs in
    const run = await ConnectorRun.start(t, CLAUDE_AI, url)
    const { verifier, challenge } = pkce()
    const toConsent = await person.request(run.authorizeUrl(challenge))
    const address = new URL(toConsent.headers.get('location') ?? '', postern.issuer).href
    const page = { address, html: await (await person.request(address)).text() }
    const answers = [
      await person.submit(page, '/consent', { decision: 'approve' }),
      await person.submit(page, '/consent', { decision: 'approve' }),
    ]
    for (const answer of answers) {
      t.equal(answer.status, 303)
      const code = run.readAnswer(new URL(answer.headers.get('location') ?? ''))
      const { status, body } = await run.redeem(code, verifier)
      t.equal(status, 200)
      t.equal(await statusAt(url, body.access_token), 200)
    }
  })

  t.test('Claude.ai refreshes from two places, a minute apart: both go on with the same pair', async (t) => {
    const { run, tokens } = await connect(t, CLAUDE_AI, url)
    const [one, other] = await Promise.all([run.refresh(tokens.refresh_token), run.refresh(tokens.refresh_token)])
    t.strictSame([one.status, other.status], [200, 200])
    t.equal(one.body.refresh_token, other.body.refresh_token)
    await letTimePass(postern.db, 76)
    const late = await run.refresh(tokens.refresh_token)
    t.equal(late.status, 200)
    t.equal(late.body.refresh_token, one.body.refresh_token)
    t.equal(await statusAt(url, late.body.access_token), 200)
  })

  t.test('Claude.ai registers at each connection: its earlier grants live on', async (t) => {
    const person = new Person()
    const first = await connect(t, CLAUDE_AI, url, person)
    const second = await connect(t, CLAUDE_AI, url, person)
    t.not(second.run.client.client_id, first.run.client.client_id)
    t.equal(await statusAt(url, first.tokens.access_token), 200)
    t.equal((await first.run.refresh(first.tokens.refresh_token)).status, 200)
  })

  t.test('Claude.ai learns from 401 invalid_client alone that its registration is gone', async (t) => {
    const { run, tokens } = await connect(t, CLAUDE_AI, url)
    await postern.db.deleteFrom('client').where('id', '=', String(run.client.client_id)).execute()
    const refused = await run.refresh(tokens.refresh_token)
    t.equal(refused.status, 401)
    t.equal(refused.body.error, 'invalid_client')
  })

  t.test('Claude, without metadata, makes up the addresses: at a root issuer they are the right ones', async (t) => {
    const { metadata } = await ConnectorRun.start(t, CLAUDE_AI, url)
    const { origin } = new URL(postern.issuer)
    t.match(metadata, {
      authorization_endpoint: `${origin}/authorize`,
      token_endpoint: `${origin}/token`,
      registration_endpoint: `${origin}/register`,
    })
  })

  t.test('Claude Code comes back at another port of localhost than it registered', async (t) => {
    const run = await ConnectorRun.start(t, CLAUDE_CODE, url)
    const { verifier, challenge } = pkce()
    run.facts.port = await freePort()
    t.notOk((run.client.redirect_uris as string[]).includes(run.redirectUri))
    const code = run.readAnswer(await new Person().authorize(run.authorizeUrl(challenge)))
    t.equal((await run.redeem(code, verifier)).status, 200)
  })

  t.test('Claude Code shares one refresh token among its processes', async (t) => {
    const { run, tokens } = await connect(t, CLAUDE_CODE, url)
    const answers = await Promise.all(Array.from({ length: 8 }, () => run.refresh(tokens.refresh_token)))
    t.strictSame(new Set(answers.map(({ status }) => status)), new Set([200]))
    t.equal(new Set(answers.map(({ body }) => body.refresh_token)).size, 1)
  })

  t.test('Codex CLI presents a refresh token several generations old: it gets the current pair', async (t) => {
    const { run, tokens } = await connect(t, CODEX_CLI, url)
    let current = tokens.refresh_token
    for (let generation = 1; generation <= 4; generation += 1) {
      current = String((await run.refresh(current)).body.refresh_token)
    }
    const late = await run.refresh(tokens.refresh_token)
    t.equal(late.status, 200)
    t.equal(late.body.refresh_token, current)
  })

  t.test('VS Code may come back at each address that it registered, and at no other', async (t) => {
    const run = await ConnectorRun.start(t, VS_CODE, url)
    const { challenge } = pkce()
    const address = run.authorizeUrl(challenge)
    for (const redirectUri of [...(run.client.redirect_uris as string[]), 'http://127.0.0.1:33419/']) {
      const url = new URL(address)
      url.searchParams.set('redirect_uri', redirectUri)
      const answer = await new Person().authorize(url.href)
      t.equal(answer.href.split('?')[0], redirectUri)
      t.ok(answer.searchParams.has('code'))
    }
    for (const redirectUri of [
      'https://vscode.dev/redirect/',
      'http://127.0.0.1:33418/x',
      'https://vscode.dev.evil/',
    ]) {
      const url = new URL(address)
      url.searchParams.set('redirect_uri', redirectUri)
      t.equal((await new Person().request(url.href)).status, 400, redirectUri)
    }
  })

  t.test('Cursor may come back at its own scheme, on the web and on loopback', async (t) => {
    const run = await ConnectorRun.start(t, CURSOR, url)
    for (const redirectUri of run.client.redirect_uris as string[]) {
      const url = new URL(run.authorizeUrl(pkce().challenge))
      url.searchParams.set('redirect_uri', redirectUri)
      const answer = await new Person().authorize(url.href)
      t.equal(answer.href.split('?')[0], redirectUri)
    }
  })

  t.test('mcp-remote looks at /authorize before the browser does: it sees no error', async (t) => {
    const run = await ConnectorRun.start(t, MCP_REMOTE, url)
    const response = await fetch(run.authorizeUrl(pkce().challenge), {
      redirect: 'manual',
      headers: { accept: 'application/json' },
    })
    t.equal(response.status, 303)
  })

  t.test('mcp-remote asks for OpenID scopes when it knows no others: it gets the defaults', async (t) => {
    const ignorant: Connector = {
      ...MCP_REMOTE,
      registration: (facts) => MCP_REMOTE.registration({ ...facts, scopes: [] }),
      authorize: (facts) => MCP_REMOTE.authorize({ ...facts, scopes: [] }),
    }
    t.equal(ignorant.authorize({ scopes: [] } as never).scope, 'openid email profile')
    await connect(t, ignorant, url)
  })
})

t.test('an MCP server at the root of its host', async (t) => {
  const { url } = await startBoth(t, { resourcePath: '' })
  for (const connector of [GEMINI_CLI, CLAUDE_CODE, CLAUDE_AI]) {
    t.test(`${connector.name} names it with or without the slash`, async (t) => {
      const { tokens } = await connect(t, connector, url)
      t.equal(await statusAt(url, tokens.access_token), 200)
    })
  }
})

t.test('what a page says of a connector that was removed', async (t) => {
  const { postern, url } = await startBoth(t, {})
  const run = await ConnectorRun.start(t, MCP_REMOTE, url)
  await postern.db.deleteFrom('client').where('id', '=', String(run.client.client_id)).execute()
  const response = await fetch(run.authorizeUrl(pkce().challenge), { headers: { accept: 'text/html' } })
  t.equal(response.status, 400)
  t.match(textOf(await response.text()), /not registered here.*connect it again/)
})
