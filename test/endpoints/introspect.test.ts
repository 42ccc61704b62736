import t from 'tap'
import { setResourceSecret } from '../../src/store/resource.ts'
import { hashSecret, issueCredential } from '../../src/tokens/secret.ts'
import { basic, basicEncoded } from '../support/credentials.ts'
import { letTimePass } from '../support/database.ts'
import { introspect, obtainTokens, post } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { addClient, addResource, RESOURCE, startTestPostern } from '../support/postern.ts'

const postern = await startTestPostern(t)
const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
const other = await addResource(postern, 'https://other.example.com/mcp')
const alice = new Person()
const { id, secret } = postern.resourceServer

/** One question with the given fields and headers. */
const ask = (fields: Record<string, string | undefined>, headers: Record<string, string> = {}) =>
  post(postern, '/introspect', fields, headers)

t.test('a resource server learns about a token that holds (RFC 7662 §2.2)', async (t) => {
  const { access_token } = await obtainTokens(postern, client, { scope: 'read' }, alice)
  const answer = await ask({ token: access_token }, { authorization: basic(id, secret) })
  t.equal(answer.status, 200)
  t.equal(answer.headers.get('cache-control'), 'no-store')
  t.match(answer.headers.get('content-type'), /^application\/json/)
  const { sub, exp, iat, ...rest } = answer.body as { sub: string; exp: number; iat: number }
  t.same(rest, {
    active: true,
    iss: postern.issuer,
    username: 'alice',
    aud: RESOURCE,
    client_id: client.client_id,
    scope: 'read',
    token_type: 'Bearer',
  })
  t.match(sub, /^[0-9a-f-]{36}$/)
  t.equal(exp - iat, 3600)
  t.ok(Number.isInteger(iat) && Math.abs(iat - Date.now() / 1000) < 60)
})

t.test('credentials may be sent as Basic, percent-encoded or not, or in the body (RFC 7662 §2.1)', async (t) => {
  const { access_token: token } = await obtainTokens(postern, client, {}, alice)
  t.match(await ask({ token }, { authorization: basic(id, secret) }), { status: 200, body: { active: true } })
  t.match(await ask({ token }, { authorization: basicEncoded(id, secret) }), { status: 200, body: { active: true } })
  t.match(await ask({ token, client_id: id, client_secret: secret }), { status: 200, body: { active: true } })
  t.match(await ask({ token, token_type_hint: 'refresh_token', client_id: id, client_secret: secret }), {
    body: { active: true },
  })
})

t.test('another resource’s token is inactive, and nothing more is said (RFC 7662 §4)', async (t) => {
  const { access_token } = await obtainTokens(postern, client, {}, alice)
  t.same(await introspect(postern, access_token, other), { active: false })
  const elsewhere = await obtainTokens(postern, client, { resource: 'https://other.example.com/mcp' }, alice)
  t.same(await introspect(postern, elsewhere.access_token), { active: false })
  t.match(await introspect(postern, elsewhere.access_token, other), {
    active: true,
    aud: 'https://other.example.com/mcp',
  })
})

t.test('whatever is no access token is inactive, and nothing more is said', async (t) => {
  const { access_token, refresh_token } = await obtainTokens(postern, client, {}, alice)
  const neverIssued = issueCredential('accessToken')
  for (const token of [
    refresh_token,
    neverIssued,
    `${access_token}x`,
    access_token.slice(1),
    'garbage',
    'ü',
    ' ',
    'x'.repeat(8000),
  ]) {
    t.same(await introspect(postern, token), { active: false }, token.slice(0, 60))
  }
})

t.test('an expired token is inactive (RFC 7662 §2.2)', async (t) => {
  const { access_token } = await obtainTokens(postern, client, {}, alice)
  await letTimePass(postern.db, 3500)
  t.equal((await introspect(postern, access_token)).active, true)
  await letTimePass(postern.db, 101)
  t.same(await introspect(postern, access_token), { active: false })
})

t.test('who is not a resource server gets 401 invalid_client and learns nothing (RFC 7662 §2.3)', async (t) => {
  const { access_token: token } = await obtainTokens(postern, client, {}, alice)
  const confidential = await addClient(postern, {
    redirectUris: ['https://app.example/callback'],
    tokenEndpointAuthMethod: 'client_secret_basic',
  })
  const { client_id, client_secret = '' } = confidential
  for (const [fields, headers] of [
    [{ token }, {}],
    [{ token, client_id: id }, {}],
    [{ token, client_id: id, client_secret: 'wrong' }, {}],
    [{ token, client_id: id, client_secret: other.secret }, {}],
    [{ token }, { authorization: basic(id, '') }],
    [{ token }, { authorization: basic(id, 'wrong') }],
    [{ token }, { authorization: basic(other.id, secret) }],
    [{ token }, { authorization: basic('00000000-0000-4000-8000-000000000000', secret) }],
    [{ token }, { authorization: basic("' or true --", secret) }],
    [{ token }, { authorization: `Bearer ${token}` }],
    [{ token }, { authorization: basic(client_id, client_secret) }],
    [{ token, client_id, client_secret }, {}],
    [{ token, client_id: client.client_id }, {}],
  ] as [Record<string, string>, Record<string, string>][]) {
    const answer = await ask(fields, headers)
    t.match(answer, { status: 401, body: { error: 'invalid_client' } }, JSON.stringify([fields, headers]))
    t.match(answer.headers.get('www-authenticate'), /^Basic /)
    t.notOk('active' in answer.body)
  }
})

t.test('a replaced secret is refused at once', async (t) => {
  const resource = await addResource(postern, 'https://rotated.example.com')
  t.same(await introspect(postern, 'x', resource), { active: false })
  await setResourceSecret(postern.db, resource.id, hashSecret('another'))
  t.match(await ask({ token: 'x' }, { authorization: basic(resource.id, resource.secret) }), { status: 401 })
  t.same(await introspect(postern, 'x', { id: resource.id, secret: 'another' }), { active: false })
})

t.test('a request that can’t be understood is refused: no token, a form sent otherwise, GET', async (t) => {
  const authorization = basic(id, secret)
  t.match(await ask({}, { authorization }), { status: 400, body: { error: 'invalid_request' } })
  const json = await fetch(`${postern.issuer}/introspect`, {
    method: 'POST',
    headers: { authorization, 'content-type': 'application/json' },
    body: '{"token":"x"}',
  })
  t.equal(json.status, 415)
  const got = await fetch(`${postern.issuer}/introspect?token=x`, { headers: { authorization } })
  t.equal(got.status, 405)
  t.equal(got.headers.get('allow'), 'POST')
})

t.test('no other origin may read the answer, and none is told that it could', async (t) => {
  const origin = 'https://page.example'
  const answer = await ask({ token: 'x', client_id: id, client_secret: secret }, { origin })
  t.equal(answer.headers.get('access-control-allow-origin'), null)
  const preflight = await fetch(`${postern.issuer}/introspect`, {
    method: 'OPTIONS',
    headers: { origin, 'access-control-request-method': 'POST' },
  })
  t.equal(preflight.status, 405)
  t.equal(preflight.headers.get('access-control-allow-origin'), null)
})

t.test('many questions at once get each its own answer', async (t) => {
  const tokens = [
    await obtainTokens(postern, client, { scope: 'read' }, alice),
    await obtainTokens(postern, client, {}, alice),
  ]
  const answers = await Promise.all(
    Array.from({ length: 120 }, async (_, n) => {
      if (n % 4 === 3) return { asked: n, ...(await introspect(postern, issueCredential('accessToken'))) }
      if (n % 4 === 2) return { asked: n, ...(await introspect(postern, tokens[0]?.access_token ?? '', other)) }
      return { asked: n, ...(await introspect(postern, tokens[n % 4]?.access_token ?? '')) }
    }),
  )
  for (const { asked, ...answer } of answers as (Record<string, unknown> & { asked: number })[]) {
    if (asked % 4 >= 2) t.same(answer, { active: false })
    else t.match(answer, { active: true, scope: asked % 4 === 0 ? 'read' : 'read write' })
  }
})
