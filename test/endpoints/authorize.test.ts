import { randomBytes, randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { setClientDisabled } from '../../src/store/client.ts'
import { insertResource } from '../../src/store/resource.ts'
import { hashSecret } from '../../src/tokens/secret.ts'
import { authorizeUrl, type FlowClient, introspect, obtainTokens, pkce, post, redeem } from '../support/flow.ts'
import { Person, textOf } from '../support/person.ts'
import {
  addClient,
  addResource,
  addUser,
  freePort,
  RESOURCE,
  startTestPostern,
  type TestPostern,
} from '../support/postern.ts'

const CALLBACK = 'https://app.example/callback'
const LOOPBACK = 'http://localhost:8787/callback'
const { challenge: CHALLENGE } = pkce()

const postern = await startTestPostern(t)
const client = await addClient(postern, { redirectUris: [CALLBACK] })

/** An authorization request; `undefined` leaves a parameter out. */
function requestOf(
  parameters: Record<string, string | undefined> = {},
  by: FlowClient = client,
  at: TestPostern = postern,
) {
  return authorizeUrl(at, by, CHALLENGE, parameters)
}

/** One request of a person, without following. */
async function visit(address: string, person: Person = new Person(), init: RequestInit = {}) {
  const response = await person.request(address, init)
  const location = response.headers.get('location')
  const html = await response.text()
  return {
    status: response.status,
    headers: response.headers,
    html,
    location: location === null ? null : new URL(location, address),
  }
}

/** Follows redirects until there is a page, or the browser leaves for the client. */
async function arrive(address: string, person: Person) {
  let next = address
  for (let step = 0; step < 5; step += 1) {
    const answer = await visit(next, person)
    if (answer.location === null || answer.location.origin !== new URL(address).origin)
      return { ...answer, address: next }
    next = answer.location.href
  }
  throw new Error('redirected in a circle')
}

/** A person who is signed in, and has consented to nothing yet. */
async function signedIn(at: TestPostern = postern, username = 'alice'): Promise<Person> {
  const person = new Person()
  await person.signIn(at.issuer, { username })
  return person
}

/** An error that is shown and never sent anywhere (RFC 6749 §4.1.2.1). */
async function isShown(t: Test, address: string, init: RequestInit = {}): Promise<string> {
  const { status, headers, location, html } = await visit(address, new Person(), init)
  t.equal(status, 400, address.slice(0, 150))
  t.equal(location, null, address.slice(0, 150))
  t.match(headers.get('content-type'), /^text\/html/)
  return textOf(html)
}

/** The error that the client is sent. */
async function sentError(t: Test, address: string, person: Person = new Person()): Promise<string | null> {
  const { status, location } = await visit(address, person)
  t.equal(status, 303, address)
  t.equal(`${location?.origin}${location?.pathname}`, CALLBACK, address)
  t.equal(location?.searchParams.get('state'), 'opaque state')
  t.equal(location?.searchParams.get('iss'), postern.issuer)
  t.notOk(location?.searchParams.has('code'))
  return location?.searchParams.get('error') ?? null
}

t.test('an error before the redirect URI is proven is a page, and is sent nowhere (RFC 6749 §4.1.2.1)', async (t) => {
  const two = await addClient(postern, { redirectUris: [CALLBACK, LOOPBACK] })
  const disabled = await addClient(postern, { redirectUris: [CALLBACK] })
  await setClientDisabled(postern.db, disabled.client_id, true)
  t.match(await isShown(t, requestOf({ client_id: 'unknown' })), 'not registered here')
  t.match(await isShown(t, requestOf({}, disabled)), 'not allowed here')
  await isShown(t, requestOf({ client_id: undefined }))
  await isShown(t, requestOf({ client_id: '' }))
  await isShown(t, requestOf({ client_id: `${client.client_id} ` }))
  await isShown(t, requestOf({ client_id: postern.resourceServer.id }))
  await isShown(t, requestOf({ redirect_uri: undefined }, two))
  for (const redirect_uri of [
    'https://evil.example/',
    `${CALLBACK}/`,
    `${CALLBACK}?x=1`,
    `${CALLBACK}#x`,
    'https://app.example:443/callback',
    'https://app.example@evil.example/callback',
    'https://app.example.evil.example/callback',
    '//app.example/callback',
    'javascript:alert(1)',
    LOOPBACK,
  ]) {
    t.match(await isShown(t, requestOf({ redirect_uri })), 'unknown address', redirect_uri)
  }
})

t.test('a parameter that decides where the answer goes may not come twice (RFC 6749 §3.1)', async (t) => {
  for (const twice of [
    `client_id=${client.client_id}`,
    `redirect_uri=${encodeURIComponent(CALLBACK)}`,
    'state=other',
    'redirect_uri=https://evil.example/',
  ]) {
    await isShown(t, `${requestOf()}&${twice}`)
  }
})

t.test('what is too long or holds a NUL is refused, not a fault', async (t) => {
  await isShown(t, requestOf({ state: 'x'.repeat(8193) }))
  await isShown(t, requestOf({ client_id: 'a\0b' }))
  await isShown(t, requestOf({ redirect_uri: `${CALLBACK}\0` }))
  t.equal(await sentError(t, requestOf({ scope: 'a\0b' })), 'invalid_request')
  t.equal(await sentError(t, requestOf({ resource: `https://mcp.example.com/${'x'.repeat(8200)}` })), 'invalid_request')
})

t.test('from then on errors go back to the client, with state and iss (RFC 6749 §4.1.2.1, RFC 9207 §2)', async (t) => {
  for (const [parameters, expected] of [
    [{ response_type: undefined }, 'invalid_request'],
    [{ response_type: 'token' }, 'unsupported_response_type'],
    [{ response_mode: 'fragment' }, 'invalid_request'],
    [{ code_challenge: undefined }, 'invalid_request'],
    [{ code_challenge: 'short' }, 'invalid_request'],
    [{ code_challenge_method: 'plain' }, 'invalid_request'],
    [{ request: 'eyJ' }, 'invalid_request'],
    [{ request_uri: 'https://app.example/request' }, 'invalid_request'],
    [{ prompt: 'none login' }, 'invalid_request'],
    [{ scope: 'a"b' }, 'invalid_scope'],
    [{ scope: 'unknown' }, 'invalid_scope'],
    [{ resource: 'https://unknown.example.com/' }, 'invalid_target'],
    [{ resource: `${RESOURCE}#fragment` }, 'invalid_target'],
    [{ resource: 'mcp' }, 'invalid_target'],
  ] as [Record<string, string | undefined>, string][]) {
    t.equal(await sentError(t, requestOf(parameters)), expected, JSON.stringify(parameters))
  }
  t.equal(await sentError(t, `${requestOf()}&scope=read&scope=write`), 'invalid_request')
  t.equal(await sentError(t, `${requestOf({ scope: undefined })}&made_up=1&made_up=2`), 'invalid_request')
  t.equal(await sentError(t, `${requestOf()}&resource=https://other.example/`), 'invalid_target', 'a second resource')
  t.equal(
    await sentError(t, `${requestOf()}&resource=${encodeURIComponent(RESOURCE)}`),
    'invalid_target',
    'the same one twice',
  )
})

t.test('a client that may not use the code grant is told so (RFC 6749 §4.1.2.1)', async (t) => {
  const other = await addClient(postern, { redirectUris: [CALLBACK], grantTypes: ['refresh_token'] })
  t.equal(await sentError(t, requestOf({}, other)), 'unauthorized_client')
})

t.test('an approval gives a code, a refusal access_denied, each with state and iss (RFC 6749 §4.1.2)', async (t) => {
  const approved = await new Person().authorize(requestOf())
  t.equal(`${approved.origin}${approved.pathname}`, CALLBACK)
  t.same([...approved.searchParams.keys()], ['code', 'state', 'iss'])
  t.equal(approved.searchParams.get('state'), 'opaque state')
  t.equal(approved.searchParams.get('iss'), postern.issuer)
  const other = await addClient(postern, { redirectUris: [CALLBACK] })
  const denied = await new Person().authorize(requestOf({}, other), { decision: 'deny' })
  t.equal(denied.searchParams.get('error'), 'access_denied')
  t.equal(denied.searchParams.get('state'), 'opaque state')
  t.equal(denied.searchParams.get('iss'), postern.issuer)
  t.match((await arrive(requestOf({}, other), await signedIn())).html, 'value="approve"', 'and nothing is remembered')
})

t.test('any state comes back as it was, through sign-in and consent (RFC 6749 §4.1.2)', async (t) => {
  const states = [
    'YWJj+ZGVm/Z2hp==',
    '%2B%20+ &iss=https://evil.example#x',
    `${randomBytes(3072).toString('base64')}==`,
    '日本語 🔑 "quoted" <b>',
    'a\r\nSet-Cookie: x=y',
  ]
  for (const state of states) {
    const fresh = await addClient(postern, { redirectUris: [LOOPBACK] })
    const answer = await new Person().authorize(requestOf({ state }, fresh))
    t.equal(answer.searchParams.get('state'), state, `${state.slice(0, 40)} with a code`)
    t.type(answer.searchParams.get('code'), 'string')
    const { location } = await visit(requestOf({ state, scope: 'unknown' }, fresh))
    t.equal(location?.searchParams.get('state'), state, 'with an error')
  }
  const { location } = await visit(requestOf({ state: undefined, scope: 'unknown' }))
  t.equal(location?.searchParams.has('state'), false, 'none when there was none')
})

t.test('the redirect URI keeps its own query (RFC 6749 §3.1.2)', async (t) => {
  const own = await addClient(postern, { redirectUris: ['https://app.example/callback?tenant=a%2Fb&x='] })
  const answer = await new Person().authorize(requestOf({}, own))
  t.match(answer.href, /^https:\/\/app\.example\/callback\?tenant=a%2Fb&x=&code=postern_ac_/)
})

t.test('nobody is asked to sign in for a request that can’t be granted', async (t) => {
  const { location } = await visit(requestOf({ scope: 'unknown' }))
  t.equal(location?.origin, 'https://app.example')
  t.match((await visit(requestOf())).location?.pathname, '/login')
})

t.test('a GET of someone who is not signed in writes nothing', async (t) => {
  const tables = await sql<{ name: string }>`
    select table_name as name from information_schema.tables where table_schema = 'public'`.execute(postern.db)
  const contents = async () => {
    const rows = await Promise.all(
      tables.rows.map(({ name }) =>
        sql`select to_jsonb(x) as row from ${sql.table(name)} x order by 1`.execute(postern.db),
      ),
    )
    return JSON.stringify(rows.map((result) => result.rows))
  }
  const before = await contents()
  const person = new Person()
  await arrive(requestOf(), person)
  await arrive(requestOf({ prompt: 'none' }), person)
  await arrive(requestOf({ scope: 'unknown' }), person)
  await arrive(`${postern.issuer}/consent?${new URL(requestOf()).searchParams}`, person)
  t.equal(await contents(), before)
})

t.test('prompt=none answers with a code, or says what would have to be asked (OIDC Core §3.1.2.6)', async (t) => {
  const fresh = await addClient(postern, { redirectUris: [CALLBACK] })
  t.equal(await sentError(t, requestOf({ prompt: 'none' }, fresh)), 'login_required')
  const person = await signedIn()
  t.equal(await sentError(t, requestOf({ prompt: 'none' }, fresh), person), 'consent_required')
  await person.authorize(requestOf({ scope: 'read' }, fresh))
  const { location } = await visit(requestOf({ prompt: 'none', scope: 'read' }, fresh), person)
  t.type(location?.searchParams.get('code'), 'string')
  t.equal(await sentError(t, requestOf({ prompt: 'none' }, fresh), person), 'consent_required', 'for more than before')
})

t.test('prompt=login asks for the password once more, and then goes on (OIDC Core §3.1.2.1)', async (t) => {
  const person = await signedIn()
  await person.authorize(requestOf())
  for (const prompt of ['login', 'select_account', 'login select_account']) {
    const page = await arrive(requestOf({ prompt }), person)
    t.match(page.html, 'name="password"', prompt)
    const answer = await person.authorize(requestOf({ prompt }))
    t.type(answer.searchParams.get('code'), 'string', prompt)
  }
})

t.test('prompt=consent asks once more, also what has been allowed (OIDC Core §3.1.2.1)', async (t) => {
  const person = await signedIn()
  await person.authorize(requestOf())
  for (const prompt of ['consent', 'login consent']) {
    const answer = await person.authorize(requestOf({ prompt }))
    t.type(answer.searchParams.get('code'), 'string', prompt)
  }
  const page = await arrive(requestOf({ prompt: 'consent' }), person)
  t.match(page.html, 'value="approve"')
  t.match(textOf(page.html), /Read your notes.*Change your notes/)
  const denied = await person.authorize(requestOf({ prompt: 'consent' }), { decision: 'deny' })
  t.equal(denied.searchParams.get('error'), 'access_denied')
})

t.test('a request may be a form, too (RFC 6749 §3.1)', async (t) => {
  const person = await signedIn()
  const body = new URL(requestOf({ state: 'a+b/c==' })).searchParams
  const { status, location } = await visit(`${postern.issuer}/authorize`, person, { method: 'POST', body })
  t.equal(status, 303, 'goes on with a GET')
  const answer = await person.authorize(location?.href ?? '')
  t.type(answer.searchParams.get('code'), 'string')
  t.equal(answer.searchParams.get('state'), 'a+b/c==')

  const twice = new URLSearchParams([...body, ['redirect_uri', 'https://evil.example/']])
  const refused = await arrive(
    (await visit(`${postern.issuer}/authorize`, person, { method: 'POST', body: twice })).location?.href ?? '',
    person,
  )
  t.equal(refused.status, 400)
  await isShown(t, (await visit(`${postern.issuer}/authorize`, person, { method: 'POST' })).location?.href ?? '')
})

t.test('a request without resource gets the default one: the first that was added (RFC 8707 §2)', async (t) => {
  await addResource(postern, 'https://second.example.com/mcp')
  for (const resource of [undefined, '']) {
    const tokens = await obtainTokens(postern, client, { resource })
    t.match(await introspect(postern, tokens.access_token), { active: true, aud: RESOURCE })
  }
})

t.test('an operator may make another resource server the default', async (t) => {
  const changed = await startTestPostern(t)
  const id = randomUUID()
  const uri = 'https://later.example.com'
  await insertResource(changed.db, {
    id,
    uri,
    name: null,
    secretHash: hashSecret('secret'),
    scopes: [],
    isDefault: true,
  })
  const app = await addClient(changed, { redirectUris: [CALLBACK] })
  const { access_token } = await obtainTokens(changed, app, { resource: undefined })
  t.match(await introspect(changed, access_token, { id, secret: 'secret' }), { active: true, aud: uri })
})

t.test('a resource may be named in any of its forms (RFC 8707 §2)', async (t) => {
  const root = await addResource(postern, 'https://root.example.com')
  const person = await signedIn()
  for (const resource of ['https://MCP.example.com/mcp', 'https://mcp.example.com:443/mcp', `${RESOURCE}/`]) {
    const { access_token } = await obtainTokens(postern, client, { resource }, person)
    t.equal((await introspect(postern, access_token)).aud, RESOURCE, resource)
  }
  for (const resource of ['https://root.example.com', 'https://ROOT.example.com/']) {
    const { access_token } = await obtainTokens(postern, client, { resource }, person)
    t.equal((await introspect(postern, access_token, root)).aud, 'https://root.example.com', resource)
  }
  t.equal(await sentError(t, requestOf({ resource: 'https://mcp.example.com/MCP' })), 'invalid_target')
  t.equal(await sentError(t, requestOf({ resource: `${RESOURCE}//` })), 'invalid_target')
})

t.test('one trailing slash of a resource tells two apart when both were added', async (t) => {
  const both = await startTestPostern(t)
  const slashed = await addResource(both, `${RESOURCE}/`)
  const app = await addClient(both, { redirectUris: [CALLBACK] })
  const person = await signedIn(both)
  const plain = await obtainTokens(both, app, { resource: RESOURCE }, person)
  t.equal((await introspect(both, plain.access_token)).active, true)
  t.equal((await introspect(both, plain.access_token, slashed)).active, false)
  const other = await obtainTokens(both, app, { resource: `${RESOURCE}/` }, person)
  t.equal((await introspect(both, other.access_token, slashed)).active, true)
  t.equal((await introspect(both, other.access_token)).active, false)
})

t.test('without any resource server a page tells the operator what to do', async (t) => {
  const empty = await startTestPostern(t, {}, { bare: true })
  await addUser(empty, 'alice')
  const app = await addClient(empty, { redirectUris: [CALLBACK] })
  for (const resource of [undefined, RESOURCE]) {
    t.match(await isShown(t, requestOf({ resource }, app, empty)), 'postern resource add')
  }
})

t.test('redirect_uri may be left out when exactly one is registered (RFC 6749 §3.1.2.3)', async (t) => {
  const { verifier, challenge } = pkce()
  const answer = await new Person().authorize(requestOf({ redirect_uri: undefined, code_challenge: challenge }))
  t.equal(`${answer.origin}${answer.pathname}`, CALLBACK)
  const code = { code: answer.searchParams.get('code') ?? '', verifier }
  t.match(await redeem(postern, client, code, { redirect_uri: 'https://app.example/other' }), {
    body: { error: 'invalid_grant' },
  })
  t.equal((await redeem(postern, client, code, { redirect_uri: undefined })).status, 200)
})

t.test('an absent code_challenge_method counts as S256 (plain, RFC 7636 §4.3, is no more)', async (t) => {
  const tokens = await obtainTokens(postern, client, { code_challenge_method: undefined })
  t.equal(tokens.scope, 'read write')
})

t.test('loopback clients are answered at the port that they ask for (RFC 8252 §7.3)', async (t) => {
  for (const host of ['127.0.0.1', '[::1]', 'localhost']) {
    const native = await addClient(postern, { redirectUris: [`http://${host}/callback`] })
    const redirect_uri = `http://${host}:49152/callback`
    const answer = await new Person().authorize(requestOf({ redirect_uri }, native))
    t.equal(`${answer.origin}${answer.pathname}`, redirect_uri)
    await isShown(t, requestOf({ redirect_uri: `http://${host}:49152/other` }, native))
  }
})

t.test('the granted scope is what was asked for, narrowed; by default all of it', async (t) => {
  const person = await signedIn()
  const scopeFor = async (scope: string | undefined, by: FlowClient = client) =>
    (await obtainTokens(postern, by, { scope }, person)).scope
  t.equal(await scopeFor(undefined), 'read write')
  t.equal(await scopeFor(''), 'read write')
  t.equal(
    await scopeFor('openid profile email offline_access'),
    'read write',
    'means nothing here, so nothing was asked for',
  )
  t.equal(await scopeFor('write'), 'write')
  t.equal(await scopeFor('write unknown offline_access read'), 'read write')
  const bounded = await addClient(postern, { redirectUris: [CALLBACK], boundScope: ['read'] })
  t.equal(await scopeFor('read write', bounded), 'read')
  t.equal(await sentError(t, requestOf({ scope: 'write' }, bounded)), 'invalid_scope')
})

t.test('consent is remembered for a client that can be told from others alone (RFC 8252 §8.6)', async (t) => {
  const withSecret = { redirectUris: [LOOPBACK], tokenEndpointAuthMethod: 'client_secret_basic' as const }
  const registered = await addClient(postern, withSecret)
  await sql`update client set registration = 'open' where id = ${registered.client_id}`.execute(postern.db)
  const own = await addClient(postern, { redirectUris: ['com.example.app:/callback'] })
  const cases: [string, boolean, FlowClient][] = [
    ['public, on https', true, await addClient(postern, { redirectUris: [CALLBACK] })],
    ['with a secret from an operator, on loopback', true, await addClient(postern, withSecret)],
    ['with a secret that anybody gets, on loopback', false, registered],
    ['public, on loopback', false, await addClient(postern, { redirectUris: [LOOPBACK] })],
    ['public, with a scheme of its own', false, own],
  ]
  const person = await signedIn()
  for (const [name, remembered, app] of cases) {
    t.match((await arrive(requestOf({}, app), person)).html, 'value="approve"', `${name}: asked at first`)
    await person.authorize(requestOf({}, app))
    const second = await arrive(requestOf({}, app), person)
    t.equal(second.location?.searchParams.has('code') ?? false, remembered, `${name}: ${second.status}`)
  }
})

t.test('consent is for one place: another redirect URI of the client asks anew', async (t) => {
  const app = await addClient(postern, { redirectUris: [CALLBACK, 'https://other.example/callback', LOOPBACK] })
  const person = await signedIn()
  await person.authorize(requestOf({}, app))
  for (const redirect_uri of ['https://other.example/callback', LOOPBACK]) {
    const page = await arrive(requestOf({ redirect_uri }, app), person)
    t.match(page.html, 'value="approve"', redirect_uri)
    const { location } = await visit(requestOf({ redirect_uri, prompt: 'none' }, app), person)
    t.equal(location?.searchParams.get('error'), 'consent_required')
  }
  t.equal((await arrive(requestOf({}, app), person)).location?.searchParams.has('code'), true)
})

t.test('ending a grant forgets its consent', async (t) => {
  const app = await addClient(postern, { redirectUris: [CALLBACK] })
  const person = await signedIn()
  const { refresh_token: token } = await obtainTokens(postern, app, {}, person)
  t.equal((await arrive(requestOf({}, app), person)).location?.searchParams.has('code'), true)
  await post(postern, '/revoke', { token, client_id: app.client_id })
  t.match((await arrive(requestOf({}, app), person)).html, 'value="approve"')
})

t.test('consent is one person’s, for one client and one resource', async (t) => {
  await addUser(postern, 'bob')
  const asked = await addClient(postern, { redirectUris: [CALLBACK] })
  const person = await signedIn()
  await person.authorize(requestOf({}, asked))
  const another = await addClient(postern, { redirectUris: [CALLBACK] })
  await addResource(postern, 'https://third.example.com/mcp')
  t.match((await arrive(requestOf({}, another), person)).html, 'value="approve"', 'another client')
  t.match(
    (await arrive(requestOf({ resource: 'https://third.example.com/mcp' }, asked), person)).html,
    'value="approve"',
  )
  t.match(
    (await arrive(requestOf({}, asked), await signedIn(postern, 'bob'))).html,
    'value="approve"',
    'another person',
  )
})

t.test('a step-up asks for the new scopes, and remembers them with the others', async (t) => {
  const person = await signedIn()
  const app = await addClient(postern, { redirectUris: [CALLBACK] })
  await person.authorize(requestOf({ scope: 'read' }, app))
  const page = textOf((await arrive(requestOf({ scope: 'read write' }, app), person)).html)
  t.match(page, /It will be able to Change your notes.*Already allowed Read your notes/)
  await person.authorize(requestOf({ scope: 'write' }, app))
  for (const scope of ['read', 'write', 'read write']) {
    const { location } = await arrive(requestOf({ scope }, app), person)
    t.type(location?.searchParams.get('code'), 'string', scope)
  }
})

t.test('with POSTERN_ISS_PARAMETER=off no answer has iss (RFC 9207 §3)', async (t) => {
  const without = await startTestPostern(t, { issParameter: false })
  const app = await addClient(without, { redirectUris: [CALLBACK] })
  const approved = await new Person().authorize(requestOf({}, app, without))
  t.same([...approved.searchParams.keys()], ['code', 'state'])
  const { location } = await visit(requestOf({ scope: 'unknown' }, app, without))
  t.same([...(location?.searchParams.keys() ?? [])], ['error', 'error_description', 'state'])
})

t.test('with POSTERN_ERROR_URI errors say where they are explained (RFC 6749 §4.1.2.1)', async (t) => {
  const explaining = await startTestPostern(t, { errorUri: 'https://docs.example/errors' })
  const app = await addClient(explaining, { redirectUris: [CALLBACK] })
  const { location } = await visit(requestOf({ scope: 'unknown' }, app, explaining))
  t.equal(location?.searchParams.get('error_uri'), 'https://docs.example/errors#invalid_scope')
  const denied = await new Person().authorize(requestOf({}, app, explaining), { decision: 'deny' })
  t.equal(denied.searchParams.get('error_uri'), 'https://docs.example/errors#access_denied')
})

t.test('below a path everything stays below it', async (t) => {
  const port = await freePort()
  const issuer = `http://localhost:${port}/auth`
  const below = await startTestPostern(t, { issuer, port })
  const app = await addClient(below, { redirectUris: [CALLBACK] })
  t.equal((await visit(requestOf({}, app, below))).location?.pathname, '/auth/login')
  const tokens = await obtainTokens(below, app)
  t.match(await introspect(below, tokens.access_token), { active: true, iss: issuer })
  t.equal((await post(below, '/revoke', { token: tokens.access_token, client_id: app.client_id })).status, 200)
})
