import { randomBytes } from 'node:crypto'
import t from 'tap'
import { basic, forge } from '../support/credentials.ts'
import { type FlowClient, isActive, obtainTokens, post, refresh, type Tokens } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { addClient, startTestPostern } from '../support/postern.ts'

const REDIRECT_URIS = { redirectUris: ['https://app.example/callback'] }

const postern = await startTestPostern(t)
const client = await addClient(postern, REDIRECT_URIS)
const alice = new Person()

const startFamily = (by: FlowClient = client) => obtainTokens(postern, by, {}, alice)

/** Revokes; the answer must be 200 and empty, whatever the token is. */
async function revoke(token: string, fields: Record<string, string> = {}, by: FlowClient = client): Promise<void> {
  const { client_id, client_secret } = by
  const answer = await post(postern, '/revoke', { token, client_id, client_secret, ...fields })
  if (answer.status !== 200) throw new Error(`revoked with ${answer.status}: ${JSON.stringify(answer.body)}`)
}

const canRefresh = async (token: string) => (await refresh(postern, client, token)).status === 200

t.test('an access token ends by itself, and its refresh token lives on (RFC 7009 §2.1)', async (t) => {
  const tokens = await startFamily()
  await revoke(tokens.access_token)
  t.equal(await isActive(postern, tokens.access_token), false)
  t.equal(await canRefresh(tokens.refresh_token), true)
})

t.test('a refresh token of any generation ends its family, and only that one (RFC 7009 §2.1)', async (t) => {
  for (const presented of [0, 1, 2]) {
    const generations = [await startFamily()]
    for (const _ of [1, 2]) {
      const { body } = await refresh(postern, client, generations.at(-1)?.refresh_token ?? '')
      generations.push(body as unknown as Tokens)
    }
    const current = generations[2] as Tokens
    const sibling = await startFamily()
    await revoke(generations[presented]?.refresh_token ?? '')
    t.equal(await isActive(postern, current.access_token), false, `generation ${presented} of 2`)
    t.equal(await canRefresh(current.refresh_token), false)
    t.equal(await isActive(postern, sibling.access_token), true, 'another installation lives on')
    t.equal(await canRefresh(sibling.refresh_token), true)
  }
})

t.test('a wrong token_type_hint makes no difference (RFC 7009 §2.1)', async (t) => {
  const one = await startFamily()
  await revoke(one.access_token, { token_type_hint: 'refresh_token' })
  t.equal(await isActive(postern, one.access_token), false)
  await revoke(one.refresh_token, { token_type_hint: 'access_token' })
  t.equal(await canRefresh(one.refresh_token), false)
  const other = await startFamily()
  await revoke(other.refresh_token, { token_type_hint: 'made_up' })
  t.equal(await canRefresh(other.refresh_token), false)
})

t.test('revoking again, or what was never issued, is 200 as well (RFC 7009 §2.2)', async (t) => {
  const tokens = await startFamily()
  for (const token of ['garbage', 'ü', forge(tokens.refresh_token, { lineage: randomBytes(32) }), 'x'.repeat(8000)]) {
    await revoke(token)
  }
  t.equal(await isActive(postern, tokens.access_token), true)
  for (const token of [tokens.access_token, tokens.refresh_token, tokens.refresh_token, tokens.access_token])
    await revoke(token)
  t.equal(await canRefresh(tokens.refresh_token), false)
})

t.test('another client’s tokens are answered alike, and nothing happens to them (RFC 7009 §2.1)', async (t) => {
  const other = await addClient(postern, { ...REDIRECT_URIS, tokenEndpointAuthMethod: 'client_secret_post' })
  const tokens = await startFamily()
  await revoke(tokens.access_token, {}, other)
  await revoke(tokens.refresh_token, {}, other)
  t.equal(await isActive(postern, tokens.access_token), true)
  t.equal(await canRefresh(tokens.refresh_token), true)
})

t.test('the client is authenticated first (RFC 7009 §2.1)', async (t) => {
  const confidential = await addClient(postern, { ...REDIRECT_URIS, tokenEndpointAuthMethod: 'client_secret_basic' })
  const { client_id, client_secret = '' } = confidential
  const { access_token: token } = await startFamily(confidential)
  for (const fields of [
    { token },
    { token, client_id },
    { token, client_id, client_secret: 'wrong' },
    { token, client_id: 'unknown' },
  ]) {
    const answer = await post(postern, '/revoke', fields)
    t.match(answer, { status: 401, body: { error: 'invalid_client' } }, JSON.stringify(fields))
    t.match(answer.headers.get('www-authenticate'), /^Basic /)
  }
  const { id, secret } = postern.resourceServer
  t.match(
    await post(postern, '/revoke', { token }, { authorization: basic(id, secret) }),
    { status: 401 },
    'a resource server',
  )
  t.equal(await isActive(postern, token), true)
  t.match(await post(postern, '/revoke', { token }, { authorization: basic(client_id, client_secret) }), {
    status: 200,
  })
  t.equal(await isActive(postern, token), false)
})

t.test('a request without a token is invalid_request, and GET is 405', async (t) => {
  t.match(await post(postern, '/revoke', { client_id: client.client_id }), {
    status: 400,
    body: { error: 'invalid_request' },
  })
  const got = await fetch(`${postern.issuer}/revoke?token=x&client_id=${client.client_id}`)
  t.equal(got.status, 405)
  t.match(got.headers.get('allow'), /POST/)
})

t.test('the answer has no body and is not kept', async (t) => {
  const body = new URLSearchParams({ token: 'x', client_id: client.client_id })
  const response = await fetch(`${postern.issuer}/revoke`, { method: 'POST', body })
  t.equal(response.status, 200)
  t.equal(await response.text(), '')
  t.equal(response.headers.get('cache-control'), 'no-store')
})

t.test('twenty revocations at once end the family once', async (t) => {
  const tokens = await startFamily()
  await Promise.all(
    Array.from({ length: 20 }, (_, n) => revoke(n % 2 === 0 ? tokens.refresh_token : tokens.access_token)),
  )
  t.equal(await isActive(postern, tokens.access_token), false)
  t.equal(await canRefresh(tokens.refresh_token), false)
})
