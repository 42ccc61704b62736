import { createHmac, generateKeyPairSync, sign } from 'node:crypto'
import { request as httpRequest } from 'node:http'
import { exportJWK } from 'jose'
import t from 'tap'
import { bindsRefreshToken } from '../../src/clients/dpop.ts'
import { dpopNonces } from '../../src/protocol/dpop.ts'
import { findClient } from '../../src/store/client.ts'
import type { ClientRow } from '../../src/store/database.ts'
import { removeEndedRows } from '../../src/store/ended-rows.ts'
import { findServerSecret, type ServerSecret } from '../../src/store/server-secret.ts'
import { letTimePass } from '../support/database.ts'
import { createProofKey, fetchNonce, type ProofKey, proofHeader, prove } from '../support/dpop.ts'
import {
  authorizeUrl,
  type FlowClient,
  introspect,
  isActive,
  obtainCode,
  obtainTokens,
  pkce,
  post,
  redeem,
  refresh,
} from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { addClient, countRows, startTestPostern } from '../support/postern.ts'
import { startReplica } from '../support/replica.ts'

const REDIRECT_URI = 'https://app.example/callback'

const postern = await startTestPostern(t)
const publicClient = await addClient(postern, { redirectUris: [REDIRECT_URI] })
const confidentialClient = await addClient(postern, {
  redirectUris: [REDIRECT_URI],
  tokenEndpointAuthMethod: 'client_secret_post',
})
const key = await createProofKey()
const otherKey = await createProofKey()

/** A whole flow whose code is redeemed with a proof. */
async function obtainBoundTokens(client: FlowClient, proofKey: ProofKey) {
  const code = await obtainCode(postern, client)
  const { status, body } = await redeem(postern, client, code, {}, await proofHeader(postern, proofKey))
  if (status !== 200) throw new Error(`redeemed with ${status}: ${JSON.stringify(body)}`)
  return body as { access_token: string; refresh_token: string; token_type: string }
}

/** A refresh with a proof; without a key, one without. */
async function refreshWith(client: FlowClient, refreshToken: string, proofKey?: ProofKey, fields = {}) {
  return refresh(postern, client, refreshToken, fields, proofKey ? await proofHeader(postern, proofKey) : {})
}

/** A request to the token endpoint that is refused for its proof before anything else is looked at. */
async function present(dpop: string) {
  return post(postern, '/token', { grant_type: 'x', client_id: publicClient.client_id }, { dpop })
}

/** A proof that is right but for its RSA key, which has 1024 bits. */
function proveWithSmallKey(claims: object): string {
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 1024 })
  const header = { typ: 'dpop+jwt', alg: 'RS256', jwk: publicKey.export({ format: 'jwk' }) }
  const signed = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
  return `${signed}.${sign('sha256', Buffer.from(signed), privateKey).toString('base64url')}`
}

/** A JWS by hand, for what no library signs. */
function handmade(header: object, claims: object, secret = ''): string {
  const signed = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
  return `${signed}.${secret && createHmac('sha256', secret).update(signed).digest('base64url')}`
}

t.test('a proof binds the tokens, and introspection names the key (RFC 9449 §5, §6.2)', async (t) => {
  const tokens = await obtainBoundTokens(publicClient, key)
  t.equal(tokens.token_type, 'DPoP')
  t.match(await introspect(postern, tokens.access_token), { active: true, token_type: 'DPoP', cnf: { jkt: key.jkt } })
  const refreshed = await refreshWith(publicClient, tokens.refresh_token, key)
  t.match(refreshed, { status: 200, body: { token_type: 'DPoP' } })
  t.match(await introspect(postern, String(refreshed.body.access_token)), { cnf: { jkt: key.jkt } })
  t.equal(await isActive(postern, tokens.access_token), false)
})

t.test('without a proof tokens are bearer tokens', async (t) => {
  const tokens = await obtainTokens(postern, publicClient)
  t.match(tokens, { token_type: 'Bearer' })
  const answer = await introspect(postern, tokens.access_token)
  t.equal(answer.token_type, 'Bearer')
  t.notOk('cnf' in answer)
})

t.test('every algorithm that metadata lists works', async (t) => {
  const metadata = await (await fetch(`${postern.issuer}/.well-known/oauth-authorization-server`)).json()
  const algorithms = (metadata as { dpop_signing_alg_values_supported: string[] }).dpop_signing_alg_values_supported
  t.same(algorithms, ['ES256', 'PS256', 'RS256', 'EdDSA', 'Ed25519'])
  for (const alg of algorithms) {
    const proofKey = await createProofKey(alg)
    const tokens = await obtainBoundTokens(publicClient, proofKey)
    t.match(await introspect(postern, tokens.access_token), { cnf: { jkt: proofKey.jkt } }, alg)
  }
})

t.test('a proof without a nonce, or with a wrong one, is answered with one (RFC 9449 §8)', async (t) => {
  for (const nonce of [undefined, 'made up']) {
    const { status, headers, body } = await present(await prove(postern, key, { nonce }))
    t.equal(status, 400)
    t.equal(body.error, 'use_dpop_nonce')
    t.match(headers.get('dpop-nonce'), /^[\w-]{43}$/)
    t.equal(headers.get('cache-control'), 'no-store')
    t.match(headers.get('access-control-expose-headers'), /dpop-nonce/, 'pages may read it')
  }
})

t.test('each answer to a proof brings the next nonce, also a refusal (RFC 9449 §8.2)', async (t) => {
  const code = await obtainCode(postern, publicClient)
  const good = await redeem(postern, publicClient, code, {}, await proofHeader(postern, key))
  t.match(good.headers.get('dpop-nonce'), /^[\w-]{43}$/)
  const bad = await refreshWith(publicClient, 'postern_rt_x', key)
  t.match(bad, { status: 400, body: { error: 'invalid_grant' } })
  t.match(bad.headers.get('dpop-nonce'), /^[\w-]{43}$/)
  t.equal((await refresh(postern, publicClient, 'x')).headers.get('dpop-nonce'), null, 'bearer clients need none')
})

t.test('a nonce of some minutes ago has ended, and one of the future has not begun', async (t) => {
  await fetchNonce(postern)
  const { value, now } = (await findServerSecret(postern.db, 'dpop_nonce')) as ServerSecret
  const presentNonce = async (seconds: number) => {
    const [nonce] = dpopNonces(value, new Date(now.getTime() + seconds * 1000))
    return present(await prove(postern, key, { nonce }))
  }
  t.match(await presentNonce(0), { body: { error: 'unsupported_grant_type' } })
  t.match(await presentNonce(-360), { body: { error: 'use_dpop_nonce' } })
  t.match(await presentNonce(360), { body: { error: 'use_dpop_nonce' } })
})

t.test('a proof for something else is refused (RFC 9449 §4.3)', async (t) => {
  const seconds = Math.floor(Date.now() / 1000)
  const cases: Record<string, Record<string, unknown>> = {
    'another method': { htm: 'GET' },
    'another address': { htu: `${postern.issuer}/introspect` },
    'another server': { htu: 'https://evil.example/token' },
    'an old one': { iat: seconds - 310 },
    'one from the future': { iat: seconds + 310 },
    'one that says itself that it has expired': { exp: seconds - 10 },
    'an iat that is text': { iat: String(seconds) },
    'no iat': { iat: undefined },
    'no jti': { jti: undefined },
    'an empty jti': { jti: '' },
    'a jti that is a number': { jti: 1 },
    'a jti without end': { jti: 'x'.repeat(257) },
    'no htm': { htm: undefined },
    'no htu': { htu: undefined },
    'several htu': { htu: [`${postern.issuer}/token`] },
    'several nonces': { nonce: [await fetchNonce(postern)] },
  }
  for (const [name, claims] of Object.entries(cases)) {
    t.match(
      await present(await prove(postern, key, claims)),
      { status: 400, body: { error: 'invalid_dpop_proof' } },
      name,
    )
  }
})

t.test('the address of the endpoint comes from the issuer, never from the Host header', async (t) => {
  const dpop = await prove(postern, key, { htu: 'http://evil.example/token' })
  const { status, body } = await send([dpop], { host: 'evil.example' })
  t.same([status, body.error], [400, 'invalid_dpop_proof'])
})

t.test('a header that is no well-signed proof is refused', async (t) => {
  const claims = { jti: 'x', htm: 'POST', htu: `${postern.issuer}/token`, iat: Math.floor(Date.now() / 1000) }
  const nonce = await fetchNonce(postern)
  const good = await prove(postern, key, { nonce })
  const [head = '', payload = '', signature = ''] = good.split('.')
  const rsa = await createProofKey('RS256')
  const secret = { kty: 'oct', k: Buffer.from('secret').toString('base64url') }
  const typ = 'dpop+jwt'
  const cases: Record<string, string> = {
    nothing: '',
    garbage: 'garbage',
    'a private key (RFC 9449 §4.3)': await prove(postern, key, {}, { jwk: await exportJWK(key.privateKey) }),
    'a private RSA key': await prove(postern, rsa, {}, { jwk: await exportJWK(rsa.privateKey) }),
    'alg none': handmade({ typ, alg: 'none', jwk: key.jwk }, { ...claims, nonce }),
    'alg none, with a signature': `${handmade({ typ, alg: 'none', jwk: key.jwk }, { ...claims, nonce })}${signature}`,
    'HS256 with its secret': handmade({ typ, alg: 'HS256', jwk: secret }, { ...claims, nonce }, 'secret'),
    'HS256 over the public key': handmade(
      { typ, alg: 'HS256', jwk: key.jwk },
      { ...claims, nonce },
      JSON.stringify(key.jwk),
    ),
    'RS256 in name, with an EC key': handmade({ typ, alg: 'RS256', jwk: key.jwk }, { ...claims, nonce }, 'x'),
    'the key of another': await prove(postern, key, {}, { jwk: otherKey.jwk }),
    'a point that is not on the curve': await prove(postern, key, {}, { jwk: { ...key.jwk, y: 'A'.repeat(43) } }),
    'a small RSA key': proveWithSmallKey({ ...claims, nonce }),
    'no key': await prove(postern, key, {}, { jwk: undefined }),
    'a key by reference': await prove(postern, key, {}, { jwk: undefined, jku: 'http://127.0.0.1:1/', kid: 'x' }),
    'another typ': await prove(postern, key, {}, { typ: 'JWT' }),
    'no typ': await prove(postern, key, {}, { typ: undefined }),
    'an unknown crit': await prove(postern, key, { nonce }, { crit: ['x'], x: 1 }),
    'a known crit that nobody needs': await prove(postern, key, { nonce }, { crit: ['b64'], b64: true }),
    'a changed payload': `${head}.${Buffer.from(JSON.stringify({ ...claims, nonce })).toString('base64url')}.${signature}`,
    'no signature': `${head}.${payload}.`,
    'two proofs with a comma': `${good}, ${await prove(postern, key, { nonce })}`,
    'more than a proof needs': await prove(postern, key, { nonce, padding: 'x'.repeat(4096) }),
  }
  for (const [name, dpop] of Object.entries(cases)) {
    t.match(await present(dpop), { status: 400, body: { error: 'invalid_dpop_proof' } }, name)
  }
  t.match(await present(good), { body: { error: 'unsupported_grant_type' } }, 'the good one passes')
})

t.test('two DPoP headers are refused, and one without end, too (RFC 9449 §4.3)', async (t) => {
  const nonce = await fetchNonce(postern)
  const [one, other] = [await prove(postern, key, { nonce }), await prove(postern, key, { nonce })]
  for (const headers of [
    [one, other],
    [one, one],
    [one, ''],
    ['', ''],
  ]) {
    const { status, body } = await send(headers)
    t.same([status, body.error], [400, 'invalid_dpop_proof'])
  }
  const huge = await send([`x${'x'.repeat(40_000)}`])
  t.same([huge.status, huge.body.error], [431, 'invalid_request'])
})

t.test('of twenty requests with one proof, on two replicas, one passes (RFC 9449 §11.1)', async (t) => {
  const replica = await startReplica(t, postern)
  const { refresh_token } = await obtainBoundTokens(publicClient, key)
  const headers = await proofHeader(postern, key)
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, n) =>
      refresh([postern, replica][n % 2] ?? postern, publicClient, refresh_token, {}, headers),
    ),
  )
  t.equal(answers.filter(({ status }) => status === 200).length, 1)
  const refused = answers.filter(({ status }) => status !== 200)
  t.same([...new Set(refused.map(({ status, body }) => `${status} ${body.error}`))], ['400 invalid_dpop_proof'])
  t.match(await refresh(replica, publicClient, refresh_token, {}, headers), { body: { error: 'invalid_dpop_proof' } })
})

t.test('a nonce of one replica is good at another', async (t) => {
  const replica = await startReplica(t, postern)
  const { refresh_token } = await obtainBoundTokens(publicClient, key)
  const nonce = await fetchNonce(postern)
  const dpop = await prove(postern, key, { nonce })
  t.match(await refresh(replica, publicClient, refresh_token, {}, { dpop }), { status: 200 })
})

t.test('of many replicas that need the first nonce at the same time, all get the same', async (t) => {
  const fresh = await startTestPostern(t)
  const nonces = await Promise.all(Array.from({ length: 20 }, () => fetchNonce(fresh)))
  t.equal(new Set(nonces).size <= 2, true, 'two, should the time step change now')
  t.equal(await countRows(fresh, 'server_secret'), 1)
})

t.test('the claims of proofs are removed when they could not be used any more', async (t) => {
  const fresh = await startTestPostern(t)
  const dpop = await prove(fresh, key)
  await post(fresh, '/token', { grant_type: 'refresh_token', client_id: publicClient.client_id }, { dpop })
  t.equal(await countRows(fresh, 'used_jti'), 0, 'an unknown client writes nothing')
  const client = await addClient(fresh, { redirectUris: [REDIRECT_URI] })
  await refresh(fresh, client, 'x', {}, { dpop })
  t.equal(await countRows(fresh, 'used_jti'), 1)
  await letTimePass(fresh.db, 301)
  await removeEndedRows(fresh.db, fresh.context.config, 100)
  t.equal(await countRows(fresh, 'used_jti'), 0)
})

t.test('a bound refresh token of a public client needs its key, and anything else burns nothing (§5)', async (t) => {
  const first = await obtainBoundTokens(publicClient, key)
  for (const wrong of [undefined, otherKey]) {
    t.match(await refreshWith(publicClient, first.refresh_token, wrong), {
      status: 400,
      body: { error: 'invalid_grant' },
    })
  }
  t.equal(await isActive(postern, first.access_token), true)
  const second = await refreshWith(publicClient, first.refresh_token, key)
  t.equal(second.status, 200)
  for (const wrong of [undefined, otherKey]) {
    const answer = await refreshWith(publicClient, first.refresh_token, wrong)
    t.match(answer, { status: 400, body: { error: 'invalid_grant' } }, 'nothing to converge on')
    t.notOk('access_token' in answer.body)
  }
  await letTimePass(postern.db, 121)
  for (const wrong of [undefined, otherKey]) {
    t.match(await refreshWith(publicClient, first.refresh_token, wrong), { body: { error: 'invalid_grant' } })
  }
  t.equal(await isActive(postern, String(second.body.access_token)), true, 'a found token without its key ends nothing')
  t.match(await refreshWith(publicClient, first.refresh_token, key), { body: { error: 'invalid_grant' } })
  t.equal(await isActive(postern, String(second.body.access_token)), false, 'a replay with the key ends the family')
})

t.test('convergence needs the key, too', async (t) => {
  const { refresh_token } = await obtainBoundTokens(publicClient, key)
  const rotated = await refreshWith(publicClient, refresh_token, key)
  const converged = await refreshWith(publicClient, refresh_token, key)
  t.match(converged, { status: 200, body: { access_token: rotated.body.access_token, token_type: 'DPoP' } })
  const narrowed = await refreshWith(publicClient, refresh_token, key, { scope: 'read' })
  t.match(narrowed, { status: 200, body: { scope: 'read', token_type: 'DPoP' } })
  t.match(await introspect(postern, String(narrowed.body.access_token)), { cnf: { jkt: key.jkt } })
})

t.test(
  'a refresh token of a confidential client is not bound: each access token is, to its own proof (§5)',
  async (t) => {
    const { refresh_token } = await obtainBoundTokens(confidentialClient, key)
    const other = await refreshWith(confidentialClient, refresh_token, otherKey)
    t.match(other, { status: 200, body: { token_type: 'DPoP' } })
    t.match(await introspect(postern, String(other.body.access_token)), { cnf: { jkt: otherKey.jkt } })

    const first = await refreshWith(confidentialClient, refresh_token, key)
    t.match(first, { status: 200, body: { token_type: 'DPoP', refresh_token: other.body.refresh_token } })
    t.not(first.body.access_token, other.body.access_token, 'nobody gets a token that is bound to the key of another')
    t.match(await introspect(postern, String(first.body.access_token)), { cnf: { jkt: key.jkt } })

    const bearer = await refreshWith(confidentialClient, refresh_token)
    t.match(bearer, { status: 200, body: { token_type: 'Bearer' } })
    t.notOk('cnf' in (await introspect(postern, String(bearer.body.access_token))))
  },
)

t.test('a public client that comes to refresh with a key is bound to it from then on (§5)', async (t) => {
  const { refresh_token } = await obtainTokens(postern, publicClient)
  const second = await refreshWith(publicClient, refresh_token, key)
  t.match(second, { status: 200, body: { token_type: 'DPoP' } })
  t.match(await refreshWith(publicClient, refresh_token, key), { status: 200 }, 'a retry converges')
  const current = String(second.body.refresh_token)
  for (const wrong of [undefined, otherKey]) {
    t.match(await refreshWith(publicClient, current, wrong), { body: { error: 'invalid_grant' } })
  }
  t.match(await refreshWith(publicClient, current, key), { status: 200 })
})

t.test('a thief who binds a stolen refresh token to a key of their own is found out by its owner', async (t) => {
  const { refresh_token } = await obtainTokens(postern, publicClient)
  const stolen = await refreshWith(publicClient, refresh_token, otherKey)
  t.equal(stolen.status, 200)
  t.match(await refreshWith(publicClient, refresh_token), { body: { error: 'invalid_grant' } })
  t.equal(await isActive(postern, String(stolen.body.access_token)), false)
})

t.test('a code that was asked for with dpop_jkt needs that key, and anything else burns nothing (§10)', async (t) => {
  const code = await obtainCode(postern, publicClient, { dpop_jkt: key.jkt })
  t.match(await redeem(postern, publicClient, code), { status: 400, body: { error: 'invalid_grant' } })
  const wrong = await redeem(postern, publicClient, code, {}, await proofHeader(postern, otherKey))
  t.match(wrong, { status: 400, body: { error: 'invalid_grant' } })
  const right = await redeem(postern, publicClient, code, {}, await proofHeader(postern, key))
  t.match(right, { status: 200, body: { token_type: 'DPoP' } })
  await letTimePass(postern.db, 30)
  await redeem(postern, publicClient, code, {}, await proofHeader(postern, otherKey))
  t.equal(await isActive(postern, String(right.body.access_token)), true, 'nor does it end the family')
})

t.test('a pushed request is bound to the key of its proof, or to dpop_jkt, but not to two (§10.1)', async (t) => {
  const { verifier, challenge } = pkce()
  const push = async (parameters: Record<string, string>, claims: Record<string, unknown> = {}) => {
    const { client_id } = publicClient
    const asked = { client_id, response_type: 'code', redirect_uri: REDIRECT_URI, code_challenge: challenge }
    const dpop = await prove(postern, key, { htu: `${postern.issuer}/par`, ...claims })
    return post(postern, '/par', { ...asked, ...parameters }, { dpop })
  }
  t.match(await push({ dpop_jkt: otherKey.jkt }), { status: 400, body: { error: 'invalid_request' } })
  t.match(await push({}, { nonce: 'x' }), { status: 400, body: { error: 'use_dpop_nonce' } })
  t.match(await push({}, { htu: `${postern.issuer}/token` }), { status: 400, body: { error: 'invalid_dpop_proof' } })
  for (const parameters of [{}, { dpop_jkt: key.jkt }]) {
    const pushed = await push(parameters)
    t.equal(pushed.status, 201)
    t.match(pushed.headers.get('dpop-nonce'), /^[\w-]{43}$/)
    const { request_uri } = pushed.body as { request_uri: string }
    const { client_id } = publicClient
    const query = new URLSearchParams({ client_id, request_uri })
    const answer = await new Person().authorize(`${postern.issuer}/authorize?${query}`)
    const code = { code: answer.searchParams.get('code') ?? '', verifier }
    const wrong = await redeem(postern, publicClient, code, {}, await proofHeader(postern, otherKey))
    t.match(wrong, { status: 400, body: { error: 'invalid_grant' } })
    const right = await redeem(postern, publicClient, code, {}, await proofHeader(postern, key))
    t.match(right, { status: 200, body: { token_type: 'DPoP' } })
  }
})

t.test(
  'a client that may come without a proof of its own has bound refresh tokens, whatever else it can do',
  async (t) => {
    const row = (await findClient(postern.db, publicClient.client_id)) as ClientRow
    const methods = (...token_endpoint_auth_methods: string[]) => ({
      ...row,
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_methods,
    })
    t.equal(bindsRefreshToken(methods('none', 'private_key_jwt')), true)
    t.equal(bindsRefreshToken(methods('private_key_jwt')), false)
  },
)

t.test('a dpop_jkt that is no thumbprint is refused at the authorization endpoint', async (t) => {
  const { challenge } = pkce()
  const answer = await new Person().authorize(authorizeUrl(postern, publicClient, challenge, { dpop_jkt: 'x' }))
  t.equal(answer.searchParams.get('error'), 'invalid_request')
})

t.test('a client with dpop_bound_access_tokens gets nothing without a proof (§5.2)', async (t) => {
  const registered = await fetch(`${postern.issuer}/register`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      redirect_uris: [REDIRECT_URI],
      token_endpoint_auth_method: 'client_secret_post',
      dpop_bound_access_tokens: true,
    }),
  })
  const client = (await registered.json()) as FlowClient & { dpop_bound_access_tokens?: boolean }
  t.equal(client.dpop_bound_access_tokens, true)
  const code = await obtainCode(postern, client)
  t.match(await redeem(postern, client, code), { status: 400, body: { error: 'invalid_dpop_proof' } })
  const { status, body } = await redeem(postern, client, code, {}, await proofHeader(postern, key))
  t.equal(status, 200)
  const refreshToken = String(body.refresh_token)
  t.match(await refreshWith(client, refreshToken), { status: 400, body: { error: 'invalid_dpop_proof' } })
  const next = await refreshWith(client, refreshToken, otherKey)
  t.match(next, { status: 200, body: { token_type: 'DPoP' } })
  const known = await refreshWith(client, String(next.body.refresh_token))
  t.match(known, { status: 400, body: { error: 'invalid_dpop_proof' } }, 'nor does one that is known')
})

/** A request whose headers are sent as they are: fetch would join them. */
async function send(
  dpop: string[],
  headers = {},
): Promise<{ status: number | undefined; body: Record<string, unknown> }> {
  const form = new URLSearchParams({ grant_type: 'x', client_id: publicClient.client_id }).toString()
  const type = { 'content-type': 'application/x-www-form-urlencoded' }
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(`${postern.issuer}/token`, { method: 'POST', headers: { ...type, ...headers, dpop } })
    outgoing.on('response', async (response) => {
      const body = Buffer.concat(await response.toArray()).toString()
      resolve({ status: response.statusCode, body: JSON.parse(body) })
    })
    outgoing.on('error', reject).end(form)
  })
}
