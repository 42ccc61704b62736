import t from 'tap'
import { letTimePass } from '../support/database.ts'
import { authorizeUrl, pkce, post, redeem } from '../support/flow.ts'
import { Person, textOf } from '../support/person.ts'
import { addClient, addResource, RESOURCE, startTestPostern, type TestPostern } from '../support/postern.ts'

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
  ]) {
    const answer = await new Person().authorize(authorizePushed(postern, client.client_id, body.request_uri, changed))
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

t.test('a client that has to push can’t send its request in the link (RFC 9126 §5)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, { redirectUris: [CALLBACK] })
  await postern.db
    .updateTable('client')
    .set({ require_pushed_authorization_requests: true })
    .where('id', '=', client.client_id)
    .execute()
  const answer = await new Person().authorize(authorizeUrl(postern, client, pkce().challenge))
  t.match(Object.fromEntries(answer.searchParams), { error: 'invalid_request' })
  const { body } = await push(postern, client.client_id)
  t.ok(
    (await new Person().authorize(authorizePushed(postern, client.client_id, body.request_uri))).searchParams.get(
      'code',
    ),
  )
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
