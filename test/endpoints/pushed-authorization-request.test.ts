import t from 'tap'
import { clientAdd, clientSet, clientShow } from '../../src/admin/client.ts'
import { letTimePass } from '../support/database.ts'
import { authorizeUrl, pkce, post, redeem } from '../support/flow.ts'
import { APP } from '../support/metadata-documents.ts'
import { Person, textOf } from '../support/person.ts'
import { addClient, addResource, RESOURCE, startTestPostern, type TestPostern } from '../support/postern.ts'
import { startWithWebsites } from '../support/websites.ts'

const CALLBACK = 'https://app.example/callback'

async function push(postern: TestPostern, clientId: string, fields: Record<string, string | undefined> = {}) {
  const { verifier, challenge } = pkce()
  const answer = await post(postern, '/par', {
    client_id: clientId,
    response_type: 'code',
    redirect_uri: CALLBACK,
    code_challenge: challenge,
    code_challenge_method: 'S256',
    state: 'pushed state',
    scope: 'read',
    resource: RESOURCE,
    ...fields,
  })
  return { ...answer, verifier }
}

function authorizePushed(
  postern: TestPostern,
  clientId: string,
  requestUri: unknown,
  more: Record<string, string> = {},
) {
  return `${postern.issuer}/authorize?${new URLSearchParams({ client_id: clientId, request_uri: String(requestUri), ...more })}`
}

t.test('a pushed request is authorized as it was pushed (RFC 9126 §2, §4)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, { redirectUris: [CALLBACK] })
  const pushed = await push(postern, client.client_id)
  t.match(pushed, { status: 201, body: { request_uri: /^urn:ietf:params:oauth:request_uri:\S+$/, expires_in: 600 } })
  const answer = await new Person().authorize(authorizePushed(postern, client.client_id, pushed.body.request_uri))
  t.equal(answer.searchParams.get('state'), 'pushed state')
  const code = answer.searchParams.get('code') ?? ''
  const { status, body } = await redeem(postern, client, { code, verifier: pushed.verifier })
  t.equal(status, 200)
  t.equal(body.scope, 'read')
})

t.test('a pushed request is judged when it is pushed (RFC 9126 §2.3)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, { redirectUris: [CALLBACK], tokenEndpointAuthMethod: 'client_secret_post' })
  const secret = { client_secret: client.client_secret }
  t.match(await push(postern, client.client_id), { status: 401, body: { error: 'invalid_client' } })
  t.match(await push(postern, client.client_id, { ...secret, code_challenge: 'short' }), {
    status: 400,
    body: { error: 'invalid_request' },
  })
  t.match(await push(postern, client.client_id, { ...secret, redirect_uri: 'https://evil.example/' }), { status: 400 })
  t.match((await push(postern, client.client_id, { ...secret, scope: 'admin' })).body, { error: 'invalid_scope' })
  t.match((await push(postern, client.client_id, { ...secret, resource: 'https://x.example/' })).body, {
    error: 'invalid_target',
  })
  t.match((await push(postern, client.client_id, { ...secret, request_uri: 'urn:x' })).body, {
    error: 'invalid_request',
  })
  t.equal((await push(postern, client.client_id, secret)).status, 201)
})

t.test('a link that contradicts the pushed request goes back with an error (RFC 9126 §4)', async (t) => {
  const postern = await startTestPostern(t)
  await addResource(postern, 'https://other.example/api')
  const client = await addClient(postern, { redirectUris: [CALLBACK] })
  const { body } = await push(postern, client.client_id)
  for (const changed of [
    { scope: 'read write' },
    { state: 'other' },
    { resource: 'https://other.example/api' },
    { prompt: 'none' },
    { redirect_uri: 'https://evil.example/callback' },
    { code_challenge: pkce().challenge },
    { code_challenge_method: 'plain' },
    { response_type: 'token' },
    { response_mode: 'fragment' },
    { dpop_jkt: pkce().challenge },
  ]) {
    const answer = await new Person().authorize(authorizePushed(postern, client.client_id, body.request_uri, changed))
    t.equal(`${answer.origin}${answer.pathname}`, CALLBACK, 'it goes where the pushed request says')
    t.match(
      Object.fromEntries(answer.searchParams),
      { error: 'invalid_request', state: 'pushed state' },
      JSON.stringify(changed),
    )
  }
  const same = await new Person().authorize(
    authorizePushed(postern, client.client_id, body.request_uri, { scope: 'read' }),
  )
  t.ok(same.searchParams.get('code'), 'the same value again is no contradiction')
})

t.test('a pushed request of another client, an expired or an unknown one is shown as an error', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, { redirectUris: [CALLBACK] })
  const other = await addClient(postern, { redirectUris: [CALLBACK] })
  const { body } = await push(postern, client.client_id)
  const person = new Person()
  const foreign = await person.request(authorizePushed(postern, other.client_id, body.request_uri))
  t.equal(foreign.status, 400)
  t.match(textOf(await foreign.text()), 'This request has expired')
  await letTimePass(postern.db, 601)
  t.equal((await person.request(authorizePushed(postern, client.client_id, body.request_uri))).status, 400)
})

t.test('prompt=login in a pushed request is met by signing in since (OpenID Connect Core §3.1.2.1)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, { redirectUris: [CALLBACK] })
  const person = new Person()
  await person.authorize(authorizeUrl(postern, client, pkce().challenge))
  const { body } = await push(postern, client.client_id, { prompt: 'login' })
  const first = await person.request(authorizePushed(postern, client.client_id, body.request_uri))
  t.match(first.headers.get('location'), '/login?', 'although somebody is signed in')
  const answer = await person.authorize(authorizePushed(postern, client.client_id, body.request_uri))
  t.ok(answer.searchParams.get('code'))
})

/** Whether a request in the link is refused, and a pushed one is not. */
async function mustPush(postern: TestPostern, clientId: string): Promise<boolean> {
  const client = { client_id: clientId, redirect_uris: [CALLBACK] }
  const answer = await new Person().authorize(authorizeUrl(postern, client, pkce().challenge))
  const { body } = await push(postern, clientId)
  const pushed = await new Person().authorize(authorizePushed(postern, clientId, body.request_uri))
  if (!pushed.searchParams.has('code')) throw new Error(`pushed in vain: ${pushed.search}`)
  return answer.searchParams.get('error') === 'invalid_request'
}

t.test('a client may register that it has to push its requests, and take that back (RFC 9126 §6)', async (t) => {
  const postern = await startTestPostern(t)
  const metadata = { redirect_uris: [CALLBACK], token_endpoint_auth_method: 'none' }
  const headers = { 'content-type': 'application/json' }
  const send = async (address: string, method: string, body: object, more: object = {}) => {
    const response = await fetch(address, { method, headers: { ...headers, ...more }, body: JSON.stringify(body) })
    return (await response.json()) as Record<string, string>
  }
  const demanding = { ...metadata, require_pushed_authorization_requests: true }
  const registered = await send(`${postern.issuer}/register`, 'POST', demanding)
  const { client_id = '', registration_client_uri = '', registration_access_token } = registered
  t.equal(registered.require_pushed_authorization_requests, true)
  t.equal(await mustPush(postern, client_id), true)
  const authorization = `Bearer ${registration_access_token}`
  const replaced = await send(registration_client_uri, 'PUT', { ...metadata, client_id }, { authorization })
  t.notOk('require_pushed_authorization_requests' in replaced)
  t.equal(await mustPush(postern, client_id), false)

  // an operator's word comes before the client's
  const { config } = postern.context
  await clientSet(config, client_id, { requirePar: true })
  await send(registration_client_uri, 'PUT', { ...metadata, client_id }, { authorization })
  t.equal(await mustPush(postern, client_id), true)
  await clientSet(config, client_id, { requirePar: false })
  await send(registration_client_uri, 'PUT', { ...demanding, client_id }, { authorization })
  t.equal(await mustPush(postern, client_id), false)
  t.match(
    await send(`${postern.issuer}/register`, 'POST', { ...metadata, require_pushed_authorization_requests: 'yes' }),
    { error: 'invalid_client_metadata' },
  )
})

t.test('an operator may add a client that has to push its requests', async (t) => {
  const postern = await startTestPostern(t)
  const { config } = postern.context
  const options = { name: 'App', redirectUri: [CALLBACK], authMethod: 'none', requirePar: true }
  const added = (await clientAdd(config, options)).json as Record<string, string>
  const { client_id = '' } = added
  t.equal(added.require_pushed_authorization_requests, true)
  t.equal(await mustPush(postern, client_id), true)
  t.match((await clientShow(config, client_id)).json, { require_pushed_authorization_requests: true })
  await clientSet(config, client_id, { requirePar: false })
  t.equal(await mustPush(postern, client_id), false)
})

t.test('a metadata document may say that its client has to push its requests', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  websites.pages.set(APP.client_id, { ...APP, require_pushed_authorization_requests: true })
  t.equal(await mustPush(postern, APP.client_id), true)
  websites.pages.set(APP.client_id, APP)
  await letTimePass(postern.db, 86_400)
  t.equal(await mustPush(postern, APP.client_id), false)
})

t.test('what means nothing is not kept, and contradicts nothing (RFC 6749 §3.1)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, { redirectUris: [CALLBACK] })
  const { status, body } = await push(postern, client.client_id, { filler: 'x'.repeat(8000), client_secret: '' })
  t.equal(status, 201)
  const [stored] = await postern.db.selectFrom('pushed_authorization_request').select('parameters').execute()
  t.notMatch(JSON.stringify(stored), 'filler')
  const link = authorizePushed(postern, client.client_id, body.request_uri, { utm_source: 'newsletter' })
  t.ok((await new Person().authorize(link)).searchParams.get('code'))
  t.match(await push(postern, client.client_id, { 'a\0b': 'x' }), { status: 400, body: { error: 'invalid_request' } })
})

t.test('one network gets so many requests kept in a minute', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, { redirectUris: [CALLBACK] })
  const keep = () => push(postern, client.client_id)
  t.equal((await keep()).status, 201)
  await postern.db.updateTable('throttle').set({ attempts: 599 }).execute()
  t.equal((await keep()).status, 201, 'the 600th')
  const refused = await keep()
  t.match(refused, { status: 429, body: { error: 'temporarily_unavailable' } })
  t.match(refused.headers.get('retry-after'), /^([1-9]|[1-5][0-9]|60)$/)
  await letTimePass(postern.db, 61)
  t.equal((await keep()).status, 201)
})
