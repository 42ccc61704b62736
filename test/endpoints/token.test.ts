import t from 'tap'
import { setClientDisabled } from '../../src/store/client.ts'
import { basic, basicEncoded } from '../support/credentials.ts'
import { type FlowClient, obtainCode, obtainTokens, post, refresh } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { addClient, startTestPostern } from '../support/postern.ts'

const REDIRECT_URIS = { redirectUris: ['https://app.example/callback'] }

const postern = await startTestPostern(t)
const publicClient = await addClient(postern, REDIRECT_URIS)
const confidential = await addClient(postern, { ...REDIRECT_URIS, tokenEndpointAuthMethod: 'client_secret_basic' })
const secret = confidential.client_secret ?? ''
const alice = new Person()

/** A token request that is good but for the client's authentication, which the fields and headers make up. */
async function authenticating(fields: Record<string, string>, headers: Record<string, string> = {}) {
  const answer = await post(postern, '/token', { grant_type: 'refresh_token', refresh_token: 'x', ...fields }, headers)
  // the token is no good, so a client that is accepted gets invalid_grant
  return {
    ...answer,
    outcome: answer.body.error === 'invalid_grant' ? 'accepted' : `${answer.status} ${answer.body.error}`,
  }
}

t.test('errors are OAuth JSON that no cache keeps, with an id for the operator’s log (RFC 6749 §5.2)', async (t) => {
  const { status, headers, body } = await post(postern, '/token', {
    grant_type: 'authorization_code',
    client_id: publicClient.client_id,
  })
  t.equal(status, 400)
  t.match(headers.get('content-type'), /^application\/json/)
  t.equal(headers.get('cache-control'), 'no-store')
  t.match(headers.get('x-request-id'), /^[0-9a-f-]{36}$/)
  t.same(Object.keys(body), ['error', 'error_description'])
  t.equal(body.error, 'invalid_request')
})

t.test('each fault of a request has its code (RFC 6749 §5.2)', async (t) => {
  const client_id = publicClient.client_id
  const onlyCodes = await addClient(postern, { ...REDIRECT_URIS, grantTypes: ['authorization_code'] })
  for (const [fields, expected] of [
    [{ client_id }, '400 invalid_request'],
    [{ client_id, grant_type: '' }, '400 invalid_request'],
    [{ client_id, grant_type: 'password' }, '400 unsupported_grant_type'],
    [{ client_id, grant_type: 'client_credentials' }, '400 unauthorized_client'],
    [{ client_id, grant_type: 'constructor' }, '400 unsupported_grant_type'],
    [{ client_id: onlyCodes.client_id, grant_type: 'refresh_token', refresh_token: 'x' }, '400 unauthorized_client'],
    [{ client_id, grant_type: 'authorization_code', code_verifier: 'x'.repeat(43) }, '400 invalid_request'],
    [{ client_id, grant_type: 'authorization_code', code: 'x' }, '400 invalid_request'],
    [{ client_id, grant_type: 'authorization_code', code: 'x', code_verifier: 'x'.repeat(43) }, '400 invalid_grant'],
    [{ client_id, grant_type: 'refresh_token' }, '400 invalid_request'],
    [{ client_id, grant_type: 'refresh_token', refresh_token: 'x' }, '400 invalid_grant'],
    [{ grant_type: 'refresh_token', refresh_token: 'x' }, '401 invalid_client'],
    [{}, '401 invalid_client'],
  ] as [Record<string, string>, string][]) {
    const { status, body } = await post(postern, '/token', fields)
    t.equal(`${status} ${body.error}`, expected, JSON.stringify(fields))
  }
})

t.test('a parameter may not come twice; a second resource is invalid_target (RFC 6749 §3.2)', async (t) => {
  const good = `client_id=${publicClient.client_id}&grant_type=refresh_token&refresh_token=x`
  for (const [more, expected] of [
    ['&grant_type=refresh_token', 'invalid_request'],
    [`&client_id=${publicClient.client_id}`, 'invalid_request'],
    ['&scope=read&scope=write', 'invalid_request'],
    ['&resource=https://a.example&resource=https://b.example', 'invalid_target'],
    ['', 'invalid_grant'],
  ]) {
    const answer = await send('POST', good + more)
    t.match(answer, { status: 400, body: { error: expected } }, more || 'once each')
  }
})

/** One request as it is; the answer must be JSON. */
async function send(method: string, body?: string, contentType = 'application/x-www-form-urlencoded', path = '/token') {
  const headers = body === undefined ? {} : { 'content-type': contentType }
  const response = await fetch(postern.issuer + path, { method, headers, ...(body === undefined ? {} : { body }) })
  return {
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Record<string, unknown>,
  }
}

t.test('a body is a form: anything else is 415, and too much is 413, in OAuth JSON', async (t) => {
  const client = { client_id: publicClient.client_id, grant_type: 'refresh_token', refresh_token: 'x' }
  t.match(await send('POST', JSON.stringify(client), 'application/json'), {
    status: 415,
    body: { error: 'invalid_request' },
  })
  t.match(await send('POST', 'grant_type=x', 'text/plain'), { status: 415, body: { error: 'invalid_request' } })
  t.match(await send('POST', '--x--', 'multipart/form-data; boundary=x'), {
    status: 415,
    body: { error: 'invalid_request' },
  })
  t.match(await send('POST', `a=${'x'.repeat(70_000)}`), { status: 413, body: { error: 'invalid_request' } })
  t.match(await send('POST'), { status: 401, body: { error: 'invalid_client' } })
  const form = new URLSearchParams(client).toString()
  t.match(await send('POST', form, 'application/x-www-form-urlencoded; charset=UTF-8'), {
    body: { error: 'invalid_grant' },
  })
})

t.test('values that the database can’t keep are refused, not a fault', async (t) => {
  for (const value of ['a%00b', '%ff', '%', '%ed%a0%80', 'x'.repeat(9000)]) {
    const answer = await send('POST', `client_id=${value}&grant_type=refresh_token&refresh_token=x`)
    t.ok([400, 401].includes(answer.status), `${value.slice(0, 20)}: ${answer.status}`)
    const code = await send(
      'POST',
      `client_id=${publicClient.client_id}&grant_type=refresh_token&refresh_token=${value}`,
    )
    t.equal(code.status, 400, value.slice(0, 20))
  }
})

t.test('another method is 405 and names the right one, another address is 404 (RFC 9110 §15.5.6)', async (t) => {
  for (const method of ['GET', 'PUT', 'DELETE', 'PATCH']) {
    const answer = await send(method)
    t.match(answer, { status: 405, body: { error: 'method_not_allowed' } }, method)
    t.match(answer.headers.get('allow'), /\bPOST\b/)
    t.notMatch(answer.headers.get('allow'), /GET/)
  }
  t.match(await send('GET', undefined, undefined, '/token?grant_type=x'), { status: 405 }, 'also with a query')
  for (const path of ['/tokens', '/token/', '/oauth/token', '/token%00', '/%ff']) {
    const answer = await send('POST', 'a=b', undefined, path)
    t.ok([404, 400].includes(answer.status), `${path}: ${answer.status}`)
    t.type(answer.body.error, 'string')
  }
})

t.test('with POSTERN_ERROR_URI every error says where it is explained (RFC 6749 §5.2)', async (t) => {
  const explaining = await startTestPostern(t, { errorUri: 'https://docs.example/errors' }, { bare: true })
  const { body } = await post(explaining, '/token', { client_id: 'x' })
  t.match(body, { error: 'invalid_client', error_uri: 'https://docs.example/errors#invalid_client' })
})

t.test('a public client sends its identifier alone, or as Basic with an empty password', async (t) => {
  const { client_id } = publicClient
  t.equal((await authenticating({ client_id })).outcome, 'accepted')
  t.equal((await authenticating({ client_id, client_secret: '' })).outcome, 'accepted')
  t.equal((await authenticating({}, { authorization: basic(client_id, '') })).outcome, 'accepted')
  t.equal((await authenticating({ client_id }, { authorization: basic(client_id, '') })).outcome, 'accepted')
  t.equal((await authenticating({ client_id, client_secret: 'made up' })).outcome, '401 invalid_client')
  t.equal((await authenticating({}, { authorization: basic(client_id, 'made up') })).outcome, '401 invalid_client')
})

t.test('a secret is sent in the header or the body, whichever was registered (RFC 6749 §2.3.1)', async (t) => {
  const registeredPost = await addClient(postern, { ...REDIRECT_URIS, tokenEndpointAuthMethod: 'client_secret_post' })
  for (const { client_id, client_secret = '' } of [confidential, registeredPost] as FlowClient[]) {
    t.equal((await authenticating({}, { authorization: basic(client_id, client_secret) })).outcome, 'accepted')
    t.equal((await authenticating({ client_id, client_secret })).outcome, 'accepted')
    const encoded = { authorization: basicEncoded(client_id, client_secret) }
    t.equal((await authenticating({}, encoded)).outcome, 'accepted', 'percent-encoded')
  }
})

t.test('a wrong secret or none is 401 with a challenge (RFC 6749 §5.2)', async (t) => {
  const { client_id } = confidential
  const other = await addClient(postern, { ...REDIRECT_URIS, tokenEndpointAuthMethod: 'client_secret_basic' })
  for (const [fields, headers] of [
    [{ client_id }, {}],
    [{ client_id, client_secret: 'wrong' }, {}],
    [{ client_id, client_secret: other.client_secret ?? '' }, {}],
    [{ client_id, client_secret: ` ${secret}` }, {}],
    [{}, { authorization: basic(client_id, 'wrong') }],
    [{}, { authorization: basic(client_id, '') }],
    [{}, { authorization: basic('unknown', secret) }],
    [{}, { authorization: `Bearer ${secret}` }],
    [{}, { authorization: 'Basic' }],
  ] as [Record<string, string>, Record<string, string>][]) {
    const answer = await authenticating(fields, headers)
    t.equal(answer.outcome, '401 invalid_client', JSON.stringify([fields, headers]))
    t.match(answer.headers.get('www-authenticate'), /^Basic realm="/)
  }
})

t.test('two methods at once are refused (RFC 6749 §2.3)', async (t) => {
  const { client_id } = confidential
  const authorization = basic(client_id, secret)
  t.equal(
    (await authenticating({ client_id, client_secret: secret }, { authorization })).outcome,
    '400 invalid_request',
  )
  t.equal(
    (await authenticating({ client_id: publicClient.client_id }, { authorization })).outcome,
    '400 invalid_request',
  )
  t.equal(
    (await authenticating({ client_id }, { authorization })).outcome,
    'accepted',
    'a repeated client_id is harmless',
  )
})

t.test('another scheme beside a client_id is invalid_request: invalid_client wipes registrations', async (t) => {
  const { client_id } = confidential
  for (const authorization of [`Bearer ${secret}`, 'nonsense']) {
    t.equal((await authenticating({ client_id }, { authorization })).outcome, '400 invalid_request', authorization)
  }
})

t.test('a disabled client is answered like one that is gone, also with the right secret', async (t) => {
  const client = await addClient(postern, { ...REDIRECT_URIS, tokenEndpointAuthMethod: 'client_secret_post' })
  const { client_id, client_secret = '' } = client
  await setClientDisabled(postern.db, client_id, true)
  const disabled = await authenticating({ client_id, client_secret })
  t.equal(disabled.outcome, '401 invalid_client')
  const gone = await authenticating({ client_id: 'gone', client_secret })
  t.same([disabled.outcome, disabled.body], [gone.outcome, gone.body])
  const authorizing = async (id: string) => {
    const query = new URLSearchParams({ client_id: id, response_type: 'code' })
    const answer = await fetch(`${postern.issuer}/authorize?${query}`, { headers: { accept: 'application/json' } })
    return { status: answer.status, body: await answer.json() }
  }
  const refused = await authorizing(client_id)
  t.match(refused.body, { error: 'invalid_client' })
  t.same(refused, await authorizing('gone'))
})

t.test('a client whose registration is gone is told where to get a new one', async (t) => {
  const { outcome, body } = await authenticating({ client_id: 'gone' })
  t.equal(outcome, '401 invalid_client')
  t.equal(body.registration_endpoint, `${postern.issuer}/register`)
  const closed = await startTestPostern(t, { registration: 'off' }, { bare: true })
  const answer = await post(closed, '/token', { grant_type: 'refresh_token', client_id: 'gone' })
  t.match(answer, { status: 401, body: { error: 'invalid_client' } })
  t.notOk('registration_endpoint' in answer.body)
})

t.test('a resource server is no client here', async (t) => {
  const { id, secret: itsSecret } = postern.resourceServer
  t.equal((await authenticating({}, { authorization: basic(id, itsSecret) })).outcome, '401 invalid_client')
  t.equal((await authenticating({ client_id: id, client_secret: itsSecret })).outcome, '401 invalid_client')
  t.equal((await authenticating({ client_id: id })).outcome, '401 invalid_client')
})

t.test('a client with a secret must prove itself to redeem and to refresh; failing burns nothing', async (t) => {
  const { code, verifier } = await obtainCode(postern, confidential, {}, alice)
  const fields = { grant_type: 'authorization_code', code, code_verifier: verifier }
  const { client_id } = confidential
  t.match(await post(postern, '/token', { ...fields, client_id }), { status: 401, body: { error: 'invalid_client' } })
  const redeemed = await post(postern, '/token', fields, { authorization: basic(client_id, secret) })
  t.equal(redeemed.status, 200)
  const token = redeemed.body.refresh_token as string
  t.match(await refresh(postern, { ...confidential, client_secret: 'wrong' }, token), { status: 401 })
  t.equal((await refresh(postern, confidential, token)).status, 200)
})

t.test('a client that registered the code grant alone gets no refresh token (RFC 7591 §2)', async (t) => {
  const client = await addClient(postern, { ...REDIRECT_URIS, grantTypes: ['authorization_code'] })
  t.notOk('refresh_token' in (await obtainTokens(postern, client, {}, alice)))
})
