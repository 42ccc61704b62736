import t from 'tap'
import { demandRegistration, replaceRegistration } from '../../src/clients/client-configuration.ts'
import { readClientMetadata } from '../../src/clients/read-metadata.ts'
import { findClient, setClientDisabled, setClientSecret } from '../../src/store/client.ts'
import { hashSecret } from '../../src/tokens/secret.ts'
import { introspect, isActive, obtainTokens, refresh } from '../support/flow.ts'
import { startTestPostern, type TestPostern } from '../support/postern.ts'

interface Registered {
  client_id: string
  client_secret?: string
  redirect_uris: string[]
  registration_access_token: string
  registration_client_uri: string
}

async function register(postern: TestPostern, metadata: object = {}): Promise<Registered> {
  const response = await fetch(`${postern.issuer}/register`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      redirect_uris: ['https://app.example/cb'],
      token_endpoint_auth_method: 'none',
      ...metadata,
    }),
  })
  return (await response.json()) as Registered
}

async function manage(client: Registered, method: string, body?: object, token = client.registration_access_token) {
  const response = await fetch(client.registration_client_uri, {
    method,
    headers: { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) },
    ...(body && { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  return { status: response.status, body: text === '' ? {} : JSON.parse(text), headers: response.headers }
}

t.test('a client reads its registration (RFC 7592 §2.1)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await register(postern, { client_name: 'App' })
  const { status, body } = await manage(client, 'GET')
  t.equal(status, 200)
  t.match(body, { client_id: client.client_id, client_name: 'App', redirect_uris: ['https://app.example/cb'] })
  t.equal(body.registration_access_token, client.registration_access_token)
})

t.test('a client replaces its registration, and what it leaves out goes (RFC 7592 §2.2)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await register(postern, { client_name: 'App', scope: 'read' })
  const replacement = {
    client_id: client.client_id,
    redirect_uris: ['https://new.example/cb'],
    token_endpoint_auth_method: 'client_secret_post',
  }
  const { status, body } = await manage(client, 'PUT', replacement)
  t.equal(status, 200)
  t.match(body, { redirect_uris: ['https://new.example/cb'], client_secret: /^postern_cs_/ }, 'it uses a secret now')
  t.notOk('client_name' in body)
  t.notOk('scope' in body)
  t.ok((await obtainTokens(postern, body)).access_token)
  t.notOk(
    'client_secret' in (await manage(client, 'PUT', replacement)).body,
    'the secret stays, and is not shown again',
  )
  t.match(await manage(client, 'PUT', { ...replacement, client_secret: 'another' }), { status: 400 })
  t.match(await manage(client, 'PUT', { ...replacement, client_id: 'another' }), { status: 400 })
  t.match(await manage(client, 'PUT', { ...replacement, redirect_uris: ['http://evil.example/'] }), {
    status: 400,
    body: { error: 'invalid_redirect_uri' },
  })
})

t.test('a client removes itself, and its tokens end (RFC 7592 §2.3)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await register(postern)
  const tokens = await obtainTokens(postern, client)
  t.equal((await manage(client, 'DELETE')).status, 204)
  t.same(await introspect(postern, tokens.access_token), { active: false })
  t.match(await refresh(postern, client, tokens.refresh_token), { status: 401, body: { error: 'invalid_client' } })
  t.equal((await manage(client, 'GET')).status, 401, 'a removed client is like one that never was')
})

t.test('the token of one client opens nothing of another (RFC 7592 §4)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await register(postern)
  const other = await register(postern)
  const tokens = await obtainTokens(postern, client)
  for (const method of ['GET', 'PUT', 'DELETE']) {
    const body =
      method === 'PUT' ? { client_id: client.client_id, redirect_uris: ['https://evil.example/'] } : undefined
    for (const token of [other.registration_access_token, 'garbage', tokens.access_token]) {
      const answer = await manage(client, method, body, token)
      t.match(answer, { status: 401, body: { error: 'invalid_token' } }, method)
      t.match(answer.headers.get('www-authenticate'), 'Bearer')
    }
  }
  t.equal(await isActive(postern, tokens.access_token), true)
  t.equal((await fetch(`${postern.issuer}/register`)).status, 400, 'no client named')
})

t.test('a secret that an operator replaces during an update stays (RFC 7592 §2.2)', async (t) => {
  const postern = await startTestPostern(t)
  const registered = await register(postern, { token_endpoint_auth_method: 'client_secret_post' })
  const asRead = await demandRegistration(postern.context, registered.client_id, registered.registration_access_token)
  await setClientSecret(postern.db, registered.client_id, hashSecret('replaced'))
  const metadata = readClientMetadata(postern.context, { ...registered, client_name: 'Renamed' })
  const told = await replaceRegistration(postern.context, asRead, metadata, registered.registration_access_token)
  t.notOk('client_secret' in told)
  t.equal(told.client_name, 'Renamed')
  t.same((await findClient(postern.db, registered.client_id))?.secret_hash, hashSecret('replaced'))
})

t.test('a disabled client can neither manage nor remove its registration (RFC 7592 §2)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await register(postern)
  await setClientDisabled(postern.db, client.client_id, true)
  const replacement = { client_id: client.client_id, redirect_uris: ['https://new.example/cb'] }
  for (const method of ['GET', 'PUT', 'DELETE']) {
    const answer = await manage(client, method, method === 'PUT' ? replacement : undefined)
    t.match(answer, { status: 403, body: { error: 'access_denied' } }, method)
  }
  t.match(await findClient(postern.db, client.client_id), { redirect_uris: ['https://app.example/cb'] })
})
