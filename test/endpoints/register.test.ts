import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { removeEndedRows } from '../../src/store/ended-rows.ts'
import { letTimePass } from '../support/database.ts'
import { authorizeUrl, type FlowClient, isActive, obtainTokens, pkce, refresh } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { addClient, countRows, startTestPostern, type TestPostern } from '../support/postern.ts'

const CALLBACK = 'https://app.example/callback'
const DAY = 86_400

const postern = await startTestPostern(t)

type Registered = FlowClient & Record<string, unknown>

/** One registration request, as JSON. */
async function register(body: unknown, headers: Record<string, string> = {}, at: TestPostern = postern) {
  return send(
    typeof body === 'string' ? body : JSON.stringify(body),
    { 'content-type': 'application/json', ...headers },
    at,
  )
}

async function send(body: string, headers: Record<string, string>, at: TestPostern = postern) {
  const response = await fetch(`${at.issuer}/register`, { method: 'POST', headers, body })
  const text = await response.text()
  return { status: response.status, headers: response.headers, text, body: JSON.parse(text) as Registered }
}

/** A client that registers itself as a public one. */
async function registered(metadata: Record<string, unknown> = {}, at: TestPostern = postern): Promise<Registered> {
  const { status, body } = await register(
    { redirect_uris: [CALLBACK], token_endpoint_auth_method: 'none', ...metadata },
    {},
    at,
  )
  if (status !== 201) throw new Error(`registered with ${status}: ${JSON.stringify(body)}`)
  return body
}

t.test('a client registers itself and gets what takes effect (RFC 7591 §3.2.1)', async (t) => {
  const { status, headers, body, text } = await register({
    redirect_uris: [CALLBACK],
    client_name: 'Notes',
    client_uri: 'https://app.example',
    contacts: ['ops@app.example'],
    scope: 'read write',
    jwks: { keys: [] },
    made_up: { nested: true },
  })
  t.equal(status, 201)
  t.match(headers.get('content-type'), /^application\/json/)
  t.equal(headers.get('cache-control'), 'no-store')
  const { client_id, client_id_issued_at, client_secret, registration_access_token, ...metadata } = body
  t.same(metadata, {
    client_secret_expires_at: 0,
    registration_client_uri: `${postern.issuer}/register?client_id=${client_id}`,
    client_name: 'Notes',
    client_uri: 'https://app.example',
    contacts: ['ops@app.example'],
    redirect_uris: [CALLBACK],
    token_endpoint_auth_method: 'client_secret_basic',
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    scope: 'read write',
  })
  t.ok(Math.abs(Number(client_id_issued_at) - Date.now() / 1000) < 60)
  t.match(client_id, /^[A-Za-z0-9._~-]+$/, 'nothing that has to be encoded in Basic credentials')
  t.match(client_secret, /^[A-Za-z0-9._~-]{43,}$/)
  t.match(registration_access_token, /^[A-Za-z0-9._~-]{43,}$/)
  t.notMatch(text, /null|""/)
})

t.test('a registered client goes through the whole flow, with the secret or without', async (t) => {
  for (const method of ['none', 'client_secret_basic', 'client_secret_post']) {
    const client = await registered({ token_endpoint_auth_method: method })
    t.equal('client_secret' in client, method !== 'none', method)
    t.equal('client_secret_expires_at' in client, method !== 'none', method)
    const tokens = await obtainTokens(postern, client)
    t.equal(await isActive(postern, tokens.access_token), true)
    t.equal((await refresh(postern, client, tokens.refresh_token)).status, 200)
  }
})

t.test('what shipping clients send is accepted (mid-2026)', async (t) => {
  const bodies: Record<string, Record<string, unknown>> = {
    'Claude.ai': {
      client_name: 'Claude',
      redirect_uris: ['https://claude.ai/api/mcp/auth_callback', 'https://claude.com/api/mcp/auth_callback'],
      token_endpoint_auth_method: 'client_secret_post',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
    },
    'VS Code': {
      client_name: 'Visual Studio Code',
      client_uri: 'https://code.visualstudio.com',
      grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
      response_types: ['code'],
      redirect_uris: [
        'https://insiders.vscode.dev/redirect',
        'https://vscode.dev/redirect',
        'http://127.0.0.1/',
        'http://127.0.0.1:33418/',
      ],
      token_endpoint_auth_method: 'none',
      application_type: 'native',
    },
    Cursor: {
      client_name: 'Cursor',
      redirect_uris: [
        'cursor://anysphere.cursor-mcp/oauth/callback',
        'https://www.cursor.com/agents/mcp/oauth/callback',
        'http://localhost:8787/callback',
      ],
      token_endpoint_auth_method: 'none',
      application_type: 'web',
    },
    'MCP Inspector': {
      client_name: 'MCP Inspector',
      redirect_uris: ['http://localhost:6274/oauth/callback'],
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      scope: '',
    },
    'Codex CLI': {
      redirect_uris: ['http://127.0.0.1:4711/callback/x7'],
      token_endpoint_auth_method: 'none',
      application_type: 'native',
    },
    'with empty and null members': {
      redirect_uris: [CALLBACK],
      client_name: '',
      client_uri: null,
      logo_uri: '',
      scope: null,
      contacts: null,
      grant_types: [],
      software_id: '',
    },
  }
  for (const [name, body] of Object.entries(bodies)) {
    const answer = await register(body)
    t.equal(answer.status, 201, `${name}: ${answer.text}`)
    t.same(answer.body.redirect_uris, body.redirect_uris, 'the redirect URIs are in the answer')
    const asked = body.grant_types as string[] | undefined
    t.same(answer.body.grant_types, asked?.length ? asked : ['authorization_code', 'refresh_token'])
    t.equal(answer.body.token_endpoint_auth_method, body.token_endpoint_auth_method ?? 'client_secret_basic')
    t.notMatch(answer.text, /null|""|\[\]/)
    const { client_id, registration_client_uri, registration_access_token } = answer.body
    t.equal(registration_client_uri, `${postern.issuer}/register?client_id=${client_id}`)
    t.type(registration_access_token, 'string', 'the two go together (RFC 7592 §3)')
  }
})

t.test('what is unusable is refused with the code that says where (RFC 7591 §3.2.2)', async (t) => {
  for (const [body, expected] of [
    [{}, 'invalid_redirect_uri'],
    [{ redirect_uris: [] }, 'invalid_redirect_uri'],
    [{ redirect_uris: 'https://app.example/' }, 'invalid_redirect_uri'],
    [{ redirect_uris: [7] }, 'invalid_redirect_uri'],
    [{ redirect_uris: ['http://app.example/'] }, 'invalid_redirect_uri'],
    [{ redirect_uris: [CALLBACK, 'javascript:alert(1)'] }, 'invalid_redirect_uri'],
    [{ redirect_uris: ['vscode://callback'] }, 'invalid_redirect_uri'],
    [{ redirect_uris: Array.from({ length: 51 }, (_, n) => `${CALLBACK}/${n}`) }, 'invalid_redirect_uri'],
    [{ redirect_uris: [`${CALLBACK}/${'x'.repeat(2048)}`] }, 'invalid_redirect_uri'],
    [{ redirect_uris: [CALLBACK], grant_types: ['client_credentials'] }, 'invalid_client_metadata'],
    [{ redirect_uris: [CALLBACK], grant_types: 'authorization_code' }, 'invalid_client_metadata'],
    [{ redirect_uris: [CALLBACK], response_types: ['token'] }, 'invalid_client_metadata'],
    [{ redirect_uris: [CALLBACK], token_endpoint_auth_method: 'client_secret_jwt' }, 'invalid_client_metadata'],
    [[], 'invalid_client_metadata'],
    ['"text"', 'invalid_client_metadata'],
    ['null', 'invalid_client_metadata'],
    ['7', 'invalid_client_metadata'],
  ] as [unknown, string][]) {
    const answer = await register(body)
    t.match(answer, { status: 400, body: { error: expected } }, JSON.stringify(body).slice(0, 100))
    t.match(answer.headers.get('content-type'), /^application\/json/)
  }
})

t.test('a member that only describes is left out when it is unusable, and the client is registered', async (t) => {
  for (const body of [
    { client_name: { de: 'Notizen' } },
    { client_name: 'a\u0000b' },
    { client_name: 'x'.repeat(3000) },
    { software_id: '\ud800', software_version: 2 },
    { contacts: 'a@app.example', logo_uri: `data:image/png;base64,${'A'.repeat(3000)}` },
  ]) {
    const answer = await register({ redirect_uris: [CALLBACK], ...body })
    t.equal(answer.status, 201, JSON.stringify(body).slice(0, 100))
    for (const member of Object.keys(body)) t.notOk(member in answer.body, member)
  }
})

t.test('a body is JSON: anything else is 415, broken JSON is 400, and too much is 413', async (t) => {
  t.match(await send('redirect_uris=x', { 'content-type': 'application/x-www-form-urlencoded' }), { status: 415 })
  t.match(await send('redirect_uris', { 'content-type': 'text/plain' }), { status: 415 })
  for (const broken of [
    '{',
    '',
    '{"redirect_uris":["x"],}',
    '{"__proto__":{"a":1}}',
    '{"constructor":{"prototype":{"a":1}}}',
  ]) {
    t.match(await register(broken), { status: 400, body: { error: 'invalid_request' } }, broken)
  }
  t.match(await register({ redirect_uris: [CALLBACK], made_up: 'x'.repeat(70_000) }), { status: 413 })
  t.match(await register({ redirect_uris: [CALLBACK] }, { 'content-type': 'application/json; charset=utf-8' }), {
    status: 201,
  })
  const patched = await fetch(`${postern.issuer}/register`, { method: 'PATCH' })
  t.equal(patched.status, 405)
  t.match(patched.headers.get('allow'), /POST/)
  const got = await fetch(`${postern.issuer}/register`)
  t.equal(got.status, 400, 'reading is for one client, which the address names (RFC 7592 §2.1)')
  t.match(await got.json(), { error: 'invalid_request' })
})

t.test('a scope at registration is what the client gets when it asks for none, and no bound', async (t) => {
  const client = await registered({ scope: 'read openid unknown' })
  t.equal(client.scope, 'read unknown', 'it is told what is kept')
  t.notOk('scope' in (await registered({ scope: 'openid profile email offline_access' })))
  t.equal((await obtainTokens(postern, client)).scope, 'read')
  t.equal((await obtainTokens(postern, client, { scope: 'read write' })).scope, 'read write', 'step-up')
})

t.test('with POSTERN_REGISTRATION=token a bearer token is needed (RFC 7591 §3)', async (t) => {
  const guarded = await startTestPostern(
    t,
    { registration: 'token', registrationToken: 'initial access token 7' },
    { bare: true },
  )
  const body = { redirect_uris: [CALLBACK] }
  for (const headers of [
    {},
    { authorization: 'Bearer wrong' },
    { authorization: 'Bearer ' },
    { authorization: 'Bearer initial' },
    { authorization: `Basic ${btoa('x:initial access token 7')}` },
  ] as Record<string, string>[]) {
    const answer = await register(body, headers, guarded)
    t.match(answer, { status: 401, body: { error: 'invalid_token' } }, JSON.stringify(headers))
    t.match(answer.headers.get('www-authenticate'), /^Bearer /)
  }
  t.equal(await countRows(guarded, 'client'), 0)
})

t.test('with the bearer token a client registers (RFC 7591 §3)', async (t) => {
  const guarded = await startTestPostern(
    t,
    { registration: 'token', registrationToken: 'postern-initial-7' },
    { bare: true },
  )
  for (const authorization of ['Bearer postern-initial-7', 'bearer postern-initial-7']) {
    t.match(await register({ redirect_uris: [CALLBACK] }, { authorization }, guarded), { status: 201 }, authorization)
  }
})

t.test('with POSTERN_REGISTRATION=off there is no such endpoint', async (t) => {
  const closed = await startTestPostern(t, { registration: 'off' }, { bare: true })
  t.match(await register({ redirect_uris: [CALLBACK] }, {}, closed), { status: 404, body: { error: 'not_found' } })
  const metadata = await fetch(`${closed.issuer}/.well-known/oauth-authorization-server`)
  t.notMatch(await metadata.text(), 'registration_endpoint')
})

/** Clients that registered themselves from a network, the first of them longest ago. */
async function insertUnusedClients(at: TestPostern, count: number, network: string, prefix: string): Promise<void> {
  await sql`
    insert into client (id, token_endpoint_auth_method, redirect_uris, grant_types, description, registration,
      registration_source, created_at, unused_since)
    select ${prefix} || n, 'none', array[${CALLBACK}], array['authorization_code'], '{}', 'open', ${network}, now(),
      now() - make_interval(secs => 3600 - n)
    from generate_series(1, ${count}) n`.execute(at.db)
}

async function isRegistered(at: TestPostern, id: string): Promise<boolean> {
  return (await sql`select 1 from client where id = ${id}`.execute(at.db)).rows.length === 1
}

t.test('unused clients of one network are bounded: the oldest goes, and nobody is locked out', async (t) => {
  const crowded = await startTestPostern(t)
  await insertUnusedClients(crowded, 1000, '127.0.0.1', 'mine-')
  await insertUnusedClients(crowded, 100, '192.0.2.1', 'other-')
  await sql`update client set unused_since = null where id = 'mine-1'`.execute(crowded.db) // in use: it doesn't count
  const client = await registered({}, crowded)
  t.equal(await isRegistered(crowded, 'mine-2'), true, 'there was room for one')
  await registered({}, crowded)
  t.equal(await isRegistered(crowded, 'mine-2'), false, 'the oldest')
  t.equal(await isRegistered(crowded, 'mine-3'), true)
  t.equal(await isRegistered(crowded, 'mine-1'), true)
  t.equal(await isRegistered(crowded, 'other-1'), true, 'another network')
  t.equal((await obtainTokens(crowded, client)).scope, 'read write', 'the newest work')

  const answers = await Promise.all(
    Array.from({ length: 30 }, () => register({ redirect_uris: [CALLBACK] }, {}, crowded)),
  )
  t.same([...new Set(answers.map(({ status }) => status))], [201])
  for (const { body } of answers) t.equal(await isRegistered(crowded, body.client_id), true)
  for (let n = 0; n < 5; n += 1) await registered({}, crowded) // each removes up to ten of what came at once
  const { rows } = await sql<{ n: number }>`
    select count(*)::integer as n from client
    where registration_source = '127.0.0.1' and unused_since is not null`.execute(crowded.db)
  t.equal(rows[0]?.n, 1000)
})

t.test('a client that stays unused for a day is removed; one that was used is not', async (t) => {
  const aged = await startTestPostern(t)
  const [unused, used] = [await registered({}, aged), await registered({}, aged)]
  const byOperator = await addClient(aged, { redirectUris: [CALLBACK] })
  const tokens = await obtainTokens(aged, used)
  await letTimePass(aged.db, DAY - 60)
  await removeEndedRows(aged.db, aged.context.config, 1000)
  t.equal(await isRegistered(aged, unused.client_id), true)
  await letTimePass(aged.db, 61)
  await removeEndedRows(aged.db, aged.context.config, 1000)
  t.equal(await isRegistered(aged, unused.client_id), false)
  t.equal(await isRegistered(aged, byOperator.client_id), true)
  t.equal((await refresh(aged, used, tokens.refresh_token)).status, 200)
  await isUnknown(t, aged, unused)
})

/** A purged client learns that it must register again: in JSON at the token endpoint, and as a page at authorize. */
async function isUnknown(t: Test, at: TestPostern, client: FlowClient): Promise<void> {
  t.match(await refresh(at, client, 'x'), { status: 401, body: { error: 'invalid_client' } })
  const page = await new Person().request(authorizeUrl(at, client, pkce().challenge))
  t.equal(page.status, 400)
  t.equal(page.headers.get('location'), null)
  t.match(page.headers.get('content-type'), /^text\/html/)
  t.match(await page.text(), 'not registered here')
}

t.test('a client counts as unused again when its last grant has gone', async (t) => {
  const aged = await startTestPostern(t, { refreshTokenSeconds: 3600 })
  const client = await registered({}, aged)
  await obtainTokens(aged, client)
  const cleanUp = () => removeEndedRows(aged.db, aged.context.config, 1000)
  await letTimePass(aged.db, 3600 + DAY + 60)
  await cleanUp()
  t.equal(await countRows(aged, 'token_family'), 0)
  t.equal(await isRegistered(aged, client.client_id), true)
  await letTimePass(aged.db, DAY + 60)
  await cleanUp()
  await isUnknown(t, aged, client)
})
