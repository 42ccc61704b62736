/**
 * What shipping MCP clients do (test/support/connectors.ts), from the MCP server's address that a person types to a
 * refreshed token: each looks for metadata in its own order, registers or names its metadata document, authorizes,
 * redeems and refreshes with its own habits. The MCP server is examples/mcp-server; docs/connectors.md tells the
 * outcome.
 */
import t, { type Test } from 'tap'
import type { Config } from '../../src/config.ts'
import { protectedResourceMetadata } from '../../src/protocol/metadata.ts'
import { makeKey } from '../support/assertion.ts'
import { ConnectorRun } from '../support/connector-run.ts'
import {
  CHATGPT_BY_DOCUMENT,
  CLAUDE_AI,
  CLAUDE_AI_BY_DOCUMENT,
  CLAUDE_CODE,
  CLAUDE_CODE_BY_DOCUMENT,
  CODEX_CLI,
  CONNECTORS,
  CONNECTORS_BY_DOCUMENT,
  type Connector,
  CURSOR,
  DIFY,
  GEMINI_CLI,
  GOOSE,
  MCP_REMOTE,
  VS_CODE,
  VS_CODE_BY_DOCUMENT,
} from '../support/connectors.ts'
import { letTimePass } from '../support/database.ts'
import { startExampleServer } from '../support/example-server.ts'
import { pkce } from '../support/flow.ts'
import { Person, textOf } from '../support/person.ts'
import { addResource, addUser, countRows, freePort, startTestPostern, type TestPostern } from '../support/postern.ts'
import { openWebsites, type Websites } from '../support/websites.ts'

/** The key of the one connector that has one. */
const CHATGPT_KEY = await makeKey('RS256')

const SCOPES = [
  { name: 'read', description: 'Read your notes' },
  { name: 'write', description: 'Add notes' },
]

/**
 * Postern, the websites of the connectors, and the example MCP server as Postern's first and so default resource.
 *
 * @param namedAs how the MCP server names itself in its metadata
 */
async function startBoth(
  t: Test,
  {
    issuerPath = '',
    resourcePath = '/mcp',
    namedAs = (url) => url,
    ...overrides
  }: Partial<Config> & { issuerPath?: string; resourcePath?: string; namedAs?: (url: string) => string } = {},
): Promise<{ postern: TestPostern; url: string; websites: Websites }> {
  const websites = await openWebsites(t)
  for (const { document } of CONNECTORS_BY_DOCUMENT) if (document) websites.pages.set(document.client_id, document)
  const { document: chatgpt } = CHATGPT_BY_DOCUMENT
  websites.pages.set(String(chatgpt?.jwks_uri), { keys: [CHATGPT_KEY.publicJwk] })
  const port = await freePort()
  const options = { port, issuer: `http://localhost:${port}${issuerPath}`, ...overrides }
  const postern = await startTestPostern(t, options, { bare: true, network: websites.network })
  await addUser(postern, 'alice')
  const url = `http://localhost:${await freePort()}${resourcePath}`
  const { id, secret } = await addResource(postern, url, SCOPES)
  await startExampleServer(t, {
    client_id: id,
    client_secret: secret,
    protected_resource_metadata: protectedResourceMetadata(namedAs(url), 'Notes', postern.issuer, ['read', 'write'])
      .document,
  })
  return { postern, url, websites }
}

/** From nothing to the first tokens. */
async function connect(t: Test, connector: Connector, url: string, person = new Person()) {
  const run = await ConnectorRun.start(t, connector, url, CHATGPT_KEY)
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
    const { postern, url, websites } = await startBoth(t, { issuerPath })
    const person = new Person() // stays signed in
    for (const connector of [...CONNECTORS, ...CONNECTORS_BY_DOCUMENT]) {
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
    t.test('each document was fetched once, and nobody registered who has one', async (t) => {
      const documents = CONNECTORS_BY_DOCUMENT.map(({ document }) => String(document?.client_id))
      t.strictSame(
        websites.fetched.filter((address) => documents.includes(address)),
        documents,
      )
      t.equal(await countRows(postern, 'client'), CONNECTORS.length + documents.length)
    })
  })
}

t.test('where documents are not accepted, connectors that have one register', async (t) => {
  const { url, websites } = await startBoth(t, { metadataDocument: false })
  const person = new Person()
  for (const connector of [CLAUDE_AI_BY_DOCUMENT, CLAUDE_CODE_BY_DOCUMENT]) {
    const { run, tokens } = await connect(t, connector, url, person)
    t.not(run.client.client_id, connector.document?.client_id)
    t.equal(await statusAt(url, tokens.access_token), 200, connector.name)
  }
  t.strictSame(websites.fetched, [])
})

t.test('where nobody may register, connectors that have a document connect', async (t) => {
  const { url } = await startBoth(t, { registration: 'off' })
  const { run, tokens } = await connect(t, VS_CODE_BY_DOCUMENT, url)
  t.notOk('registration_endpoint' in run.metadata)
  t.equal(await statusAt(url, tokens.access_token), 200)
})

t.test(
  'for a host that drops iss, POSTERN_ISS_PARAMETER=off announces none and sends none (RFC 9207 §3)',
  async (t) => {
    const { url } = await startBoth(t, { issParameter: false })
    for (const connector of [GOOSE, CHATGPT_BY_DOCUMENT]) {
      const { run } = await connect(t, connector, url)
      t.equal(run.metadata.authorization_response_iss_parameter_supported, false, connector.name)
    }
  },
)

t.test('habits of single connectors', async (t) => {
  const { postern, url } = await startBoth(t)

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

  t.test('Claude Code is one client_id on every computer: what ends one grant leaves the others alive', async (t) => {
    const alice = new Person()
    const first = await connect(t, CLAUDE_CODE_BY_DOCUMENT, url, alice)
    const second = await connect(t, CLAUDE_CODE_BY_DOCUMENT, url, alice)
    t.equal(second.run.client.client_id, first.run.client.client_id)
    await first.run.refresh(first.tokens.refresh_token)
    await letTimePass(postern.db, 121)
    t.equal((await first.run.refresh(first.tokens.refresh_token)).status, 400, 'a replay ends its own family')
    t.equal((await second.run.refresh(second.tokens.refresh_token)).status, 200)
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

  t.test('Dify sees authorization_code among the grants, and so stays with it', async (t) => {
    const { facts } = await ConnectorRun.start(t, DIFY, url)
    t.ok(facts.grantTypes.includes('authorization_code'))
  })

  t.test('ChatGPT proves itself with its key: another key gets nothing, and burns nothing', async (t) => {
    const { run, tokens } = await connect(t, CHATGPT_BY_DOCUMENT, url)
    const stranger = await makeKey('RS256', String(CHATGPT_KEY.publicJwk.kid))
    const thief = await ConnectorRun.start(t, CHATGPT_BY_DOCUMENT, url, stranger)
    const refused = await thief.refresh(tokens.refresh_token)
    t.equal(refused.status, 401)
    t.equal(refused.body.error, 'invalid_client')
    t.equal((await run.refresh(tokens.refresh_token)).status, 200)
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

for (const [how, namedAs, connectors] of [
  ['as Postern prints it', (url: string) => url, [CLAUDE_CODE, CLAUDE_AI]],
  ['with the slash, as Gemini CLI wants it', (url: string) => `${url}/`, [GEMINI_CLI, CLAUDE_CODE, CLAUDE_AI]],
] as const) {
  t.test(`an MCP server at the root of its host that names itself ${how}`, async (t) => {
    const { url } = await startBoth(t, { resourcePath: '', namedAs })
    for (const connector of connectors) {
      t.test(`${connector.name} names it with or without the slash`, async (t) => {
        const { tokens } = await connect(t, connector, url)
        t.equal(await statusAt(url, tokens.access_token), 200)
      })
    }
  })
}

t.test('what a page says of a connector that was removed', async (t) => {
  const { postern, url } = await startBoth(t)
  const run = await ConnectorRun.start(t, MCP_REMOTE, url)
  await postern.db.deleteFrom('client').where('id', '=', String(run.client.client_id)).execute()
  const response = await fetch(run.authorizeUrl(pkce().challenge), { headers: { accept: 'text/html' } })
  t.equal(response.status, 400)
  t.match(textOf(await response.text()), /not registered here.*connect it again/)
})
