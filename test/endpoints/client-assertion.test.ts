import { createHmac, createPublicKey } from 'node:crypto'
import { exportJWK, exportSPKI, importJWK, type JWK, SignJWT, UnsecuredJWT } from 'jose'
import t, { type Test } from 'tap'
import { removeEndedRows } from '../../src/store/ended-rows.ts'
import {
  ACCEPTED,
  asAssertion,
  assertionBy,
  type ClientKey,
  judgedAs,
  makeKey,
  REDIRECT_URI,
  REFUSED,
  registerWithKeys,
} from '../support/assertion.ts'
import { basic } from '../support/credentials.ts'
import { letTimePass } from '../support/database.ts'
import { isActive, obtainCode, post, redeem } from '../support/flow.ts'
import { countRows, startTestPostern, type TestPostern } from '../support/postern.ts'
import { startReplica } from '../support/replica.ts'

const JWKS_URI = 'https://keys.example/jwks.json'

async function startWithClient(t: Test, algorithm = 'ES256') {
  const postern = await startTestPostern(t)
  const key = await makeKey(algorithm)
  const { client_id } = await registerWithKeys(postern, { jwks: { keys: [key.publicJwk] } })
  return { postern, key, client_id }
}

for (const algorithm of ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519']) {
  t.test(`a client proves itself with ${algorithm}, wherever clients authenticate (RFC 7523 §2.2)`, async (t) => {
    const { postern, key, client_id } = await startWithClient(t, algorithm)
    const client = { client_id, redirect_uris: [REDIRECT_URI] }
    const code = await obtainCode(postern, client)
    const redeemed = await redeem(postern, client, code, await assertionBy(postern, client_id, key))
    t.equal(redeemed.status, 200, JSON.stringify(redeemed.body))
    const { access_token, refresh_token } = redeemed.body as Record<string, string>
    const refreshed = await post(postern, '/token', {
      grant_type: 'refresh_token',
      refresh_token,
      ...(await assertionBy(postern, client_id, key, { aud: [`${postern.issuer}/token`] })), // no client_id: RFC 7521 §4.2
    })
    t.equal(refreshed.status, 200)
    t.notOk(await isActive(postern, String(access_token)))
    const token = String(refreshed.body.access_token)
    t.match(await post(postern, '/revoke', { token, client_id }), { status: 401 }, 'not without')
    t.ok(await isActive(postern, token))
    t.equal((await post(postern, '/revoke', { token, ...(await assertionBy(postern, client_id, key)) })).status, 200)
    t.notOk(await isActive(postern, token))
  })
}

t.test('registration answers with the public members of the keys, and without a secret (RFC 7591 §2)', async (t) => {
  const postern = await startTestPostern(t)
  const key = await makeKey('RS256')
  const jwk = { ...key.publicJwk, alg: 'RS256', use: 'sig', x5t: 'left-out' }
  const client = await registerWithKeys(postern, { jwks: { keys: [jwk, { kty: 'oct', k: 'c2VjcmV0' }] } })
  const { x5t, ...stored } = jwk
  t.equal(x5t, 'left-out')
  t.match(client, { status: 201, token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: [stored] } })
  t.notOk('client_secret' in client)
})

t.test('metadata without one usable source of keys is refused', async (t) => {
  const postern = await startTestPostern(t)
  const { publicJwk, privateKey } = await makeKey()
  t.ok(privateKey)
  const jwks = { keys: [publicJwk] }
  for (const [what, metadata] of [
    ['no keys', {}],
    ['an empty set', { jwks: { keys: [] } }],
    ['both', { jwks, jwks_uri: JWKS_URI }],
    ['a private key', { jwks: { keys: [{ ...publicJwk, d: 'AAAA' }] } }],
    ['a symmetric key', { jwks: { keys: [{ kty: 'oct', k: 'AAAA' }] } }],
    ['another curve', { jwks: { keys: [{ ...publicJwk, crv: 'P-384' }] } }],
    ['a small RSA key', { jwks: { keys: [{ kty: 'RSA', n: 'A'.repeat(171), e: 'AQAB' }] } }],
    ['no set', { jwks: [publicJwk] }],
    ['an http address', { jwks_uri: 'http://keys.example/jwks.json' }],
    ['credentials', { jwks_uri: 'https://user@keys.example/jwks.json' }],
    ['an algorithm with a shared key', { jwks, token_endpoint_auth_signing_alg: 'HS256' }],
    ['no algorithm', { jwks, token_endpoint_auth_signing_alg: 'none' }],
  ] as const) {
    t.match(await registerWithKeys(postern, metadata), { status: 400, error: 'invalid_client_metadata' }, what)
  }
})

t.test('claims must fit this server, this client and this moment (RFC 7523 §3)', async (t) => {
  const { postern, key, client_id } = await startWithClient(t)
  const now = Math.floor(Date.now() / 1000)
  const other = (await registerWithKeys(postern, { jwks: { keys: [(await makeKey()).publicJwk] } })).client_id
  const cases: [string, Record<string, unknown>, string][] = [
    ['as it should be', {}, ACCEPTED],
    ['the token endpoint as audience', { aud: `${postern.issuer}/token` }, ACCEPTED],
    ['the revocation endpoint as audience', { aud: `${postern.issuer}/revoke` }, ACCEPTED],
    ['the device authorization endpoint as audience', { aud: `${postern.issuer}/device_authorization` }, ACCEPTED],
    ['one of several audiences', { aud: ['https://other.example', postern.issuer] }, ACCEPTED],
    ['only the times that must be', { iat: undefined }, ACCEPTED],
    ['a clock that is a little fast', { iat: now + 20, nbf: now + 20 }, ACCEPTED],
    ['a clock that is a little slow', { exp: now - 20 }, ACCEPTED],
    ['another audience', { aud: 'https://other.example' }, REFUSED],
    ['other audiences', { aud: ['https://other.example', `${postern.issuer}/`] }, REFUSED],
    ['no audience', { aud: undefined }, REFUSED],
    ['an audience that only begins like ours', { aud: `${postern.issuer}.evil.example` }, REFUSED],
    ['expired', { exp: now - 60 }, REFUSED],
    ['no end', { exp: undefined }, REFUSED],
    ['an end that is text', { exp: String(now + 60) }, REFUSED],
    ['a far end', { exp: now + 3600 }, REFUSED],
    ['not yet valid', { nbf: now + 120 }, REFUSED],
    ['issued in the future', { iat: now + 120 }, REFUSED],
    ['no jti', { jti: undefined }, REFUSED],
    ['an empty jti', { jti: '' }, REFUSED],
    ['no issuer', { iss: undefined }, REFUSED],
    ['another issuer', { iss: other }, REFUSED],
    ['another subject', { sub: other }, REFUSED],
    ['another client', { iss: other, sub: other }, REFUSED],
    ['an unknown client', { iss: 'nobody', sub: 'nobody' }, REFUSED],
    ['a subject that is no text', { sub: 1 }, REFUSED],
  ]
  for (const [what, claims, expected] of cases) {
    t.equal(await judgedAs(postern, await assertionBy(postern, client_id, key, claims)), expected, what)
  }
})

t.test('only the registered key counts, whatever the header says', async (t) => {
  const { postern, key, client_id } = await startWithClient(t, 'RS256')
  const stranger = await makeKey('RS256', key.publicJwk.kid)
  const wellMade = async (by: ClientKey, header: object) =>
    judgedAs(postern, await assertionBy(postern, client_id, by, {}, header))
  t.equal(await wellMade(key, {}), ACCEPTED)
  t.equal(await wellMade(key, { typ: 'client-authentication+jwt' }), ACCEPTED)
  t.equal(await wellMade(key, { typ: 'JWT' }), ACCEPTED)
  t.equal(await wellMade(key, { jwk: stranger.publicJwk }), ACCEPTED, 'a key that is embedded is ignored')
  t.equal(await wellMade(stranger, {}), REFUSED, 'another key under the same name')
  t.equal(await wellMade(stranger, { jwk: stranger.publicJwk }), REFUSED, 'embedded jwk')
  t.equal(await wellMade(stranger, { jku: 'https://evil.example/jwks.json' }), REFUSED, 'jku')
  t.equal(await wellMade(stranger, { x5u: 'https://evil.example/certificate' }), REFUSED, 'x5u')
  t.equal(await wellMade(key, { kid: 'another' }), REFUSED, 'a key that is not there')
  t.equal(await wellMade(key, { typ: 'at+jwt' }), REFUSED, 'a JWT that was made for something else')
  t.equal(await wellMade(key, { typ: 'dpop+jwt' }), REFUSED)
  const strange = await assertionWithCrit(postern, client_id, key)
  t.equal(await judgedAs(postern, strange), REFUSED, 'unknown crit (RFC 7515 §4.1.11)')
})

t.test('an assertion with no signature, or with the public key as a shared one, proves nothing', async (t) => {
  const { postern, key, client_id } = await startWithClient(t, 'RS256')
  const now = Math.floor(Date.now() / 1000)
  const claims = { iss: client_id, sub: client_id, aud: postern.issuer, jti: 'one', exp: now + 60 }
  const unsecured = new UnsecuredJWT(claims).encode()
  t.equal(await judgedAs(postern, asAssertion(unsecured)), REFUSED, 'alg none')
  for (const alg of ['None', 'NONE', 'nOnE']) {
    const header = Buffer.from(JSON.stringify({ alg })).toString('base64url')
    t.equal(await judgedAs(postern, asAssertion(`${header}.${unsecured.split('.')[1]}.`)), REFUSED, alg)
  }
  const pem = await exportSPKI((await importJWK(key.publicJwk, 'RS256')) as never)
  const jwk = JSON.stringify(key.publicJwk)
  const der = createPublicKey(pem).export({ type: 'spki', format: 'der' })
  for (const secret of [pem, pem.trimEnd(), jwk, der, Buffer.from(String(key.publicJwk.n), 'base64url')]) {
    const bytes = Buffer.from(secret as string)
    const signed = await new SignJWT(claims)
      .setProtectedHeader({ alg: 'HS256', kid: key.publicJwk.kid as string })
      .sign(bytes)
    t.equal(await judgedAs(postern, asAssertion(signed)), REFUSED, 'HS256 over the public key')
    const [head, body] = signed.split('.')
    const wrongHead = Buffer.from(JSON.stringify({ alg: 'RS256', kid: key.publicJwk.kid })).toString('base64url')
    const mac = createHmac('sha256', bytes).update(`${wrongHead}.${body}`).digest('base64url')
    t.ok(head)
    t.equal(await judgedAs(postern, asAssertion(`${wrongHead}.${body}.${mac}`)), REFUSED, 'the same, and it says RS256')
  }
  const good = (await assertionBy(postern, client_id, key)).client_assertion
  const [head, body, signature] = good.split('.') as [string, string, string]
  for (const broken of ['', '.', '..', 'x', 'a.b.c', `${head}.${body}`, `${head}.${body}.`, `${good}.x`, `${good}=`]) {
    t.match(
      await judgedAs(postern, asAssertion(broken)),
      /^(401 invalid_client|400 invalid_request)$/,
      JSON.stringify(broken),
    )
  }
  const changed = Buffer.from(JSON.stringify({ ...claims, jti: 'changed' })).toString('base64url')
  t.equal(await judgedAs(postern, asAssertion(`${head}.${changed}.${signature}`)), REFUSED)
})

t.test('of twenty requests with one assertion on two replicas one passes', async (t) => {
  const { postern, key, client_id } = await startWithClient(t)
  const replica = await startReplica(t, postern)
  const fields = await assertionBy(postern, client_id, key)
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, index) => judgedAs(index % 2 === 0 ? postern : replica, fields)),
  )
  t.same(answers.sort(), [ACCEPTED, ...Array(19).fill(REFUSED)].sort())
  t.equal(await judgedAs(postern, fields), REFUSED, 'and none later')
  const jti = { jti: 'the same' }
  const other = await makeKey()
  const second = (await registerWithKeys(postern, { jwks: { keys: [other.publicJwk] } })).client_id
  t.equal(await judgedAs(postern, await assertionBy(postern, client_id, key, jti)), ACCEPTED)
  t.equal(
    await judgedAs(postern, await assertionBy(postern, second, other, jti)),
    ACCEPTED,
    'another client has its own',
  )
  t.equal(
    await judgedAs(postern, await assertionBy(postern, client_id, key, jti)),
    REFUSED,
    'a new assertion with an old jti',
  )
})

t.test(
  'an assertion that is refused uses up nothing, and used ones are forgotten when they have expired',
  async (t) => {
    const { postern, key, client_id } = await startWithClient(t)
    const stranger = await makeKey('ES256', key.publicJwk.kid)
    const jti = { jti: 'precious' }
    await judgedAs(postern, await assertionBy(postern, client_id, stranger, jti))
    await judgedAs(postern, await assertionBy(postern, client_id, key, { ...jti, aud: 'https://other.example' }))
    t.equal(await judgedAs(postern, await assertionBy(postern, client_id, key, jti)), ACCEPTED)
    t.equal(await countRows(postern, 'used_jti'), 1)
    const retention = { unusedClientSeconds: 86_400 }
    await removeEndedRows(postern.db, retention, 1000)
    t.equal(await countRows(postern, 'used_jti'), 1)
    await letTimePass(postern.db, 160)
    await removeEndedRows(postern.db, retention, 1000)
    t.equal(await countRows(postern, 'used_jti'), 0)
  },
)

t.test('one way of authentication at a time, and the one that was registered (RFC 6749 §2.3)', async (t) => {
  const { postern, key, client_id } = await startWithClient(t)
  const assertion = await assertionBy(postern, client_id, key)
  t.equal(await judgedAs(postern, { client_id }), REFUSED, 'the identifier alone')
  t.equal(await judgedAs(postern, { client_id, client_secret: '' }), REFUSED, 'an empty secret')
  t.equal(await judgedAs(postern, { client_id, client_secret: 'x' }), REFUSED)
  t.equal(await judgedAs(postern, { ...assertion, client_secret: 'x' }), '400 invalid_request')
  t.equal(await judgedAs(postern, { ...assertion, client_id: 'another' }), '400 invalid_request')
  t.equal(await judgedAs(postern, { ...assertion, client_assertion_type: 'urn:other' }), REFUSED)
  t.equal(await judgedAs(postern, { client_assertion: assertion.client_assertion }), REFUSED, 'no type')
  t.equal(await judgedAs(postern, { client_assertion_type: assertion.client_assertion_type }), REFUSED, 'no assertion')
  const authorization = basic(client_id, '')
  const fields = { grant_type: 'refresh_token', refresh_token: 'unknown' }
  t.match(await post(postern, '/token', fields, { authorization }), { status: 401 }, 'Basic with an empty password')
  t.match(await post(postern, '/token', { ...fields, ...assertion }, { authorization }), { status: 400 })
  const { client_id: open } = await registerWithKeys(postern, { token_endpoint_auth_method: 'none' })
  t.equal(await judgedAs(postern, await assertionBy(postern, open, key)), REFUSED, 'a client without keys')
  t.equal(await judgedAs(postern, assertion), ACCEPTED, 'and all that used up nothing')
})

t.test('a client may have pinned its algorithm at registration', async (t) => {
  const postern = await startTestPostern(t)
  const { publicJwk, privateKey } = await makeKey('PS256')
  const { client_id } = await registerWithKeys(postern, {
    jwks: { keys: [publicJwk] },
    token_endpoint_auth_signing_alg: 'PS256',
  })
  const key = { algorithm: 'PS256', privateKey, publicJwk }
  t.equal(await judgedAs(postern, await assertionBy(postern, client_id, key)), ACCEPTED)
  const jwk: JWK = { ...(await exportJWK(privateKey)), alg: 'RS256' }
  const asRs256 = { algorithm: 'RS256', privateKey: (await importJWK(jwk, 'RS256')) as never, publicJwk }
  t.equal(await judgedAs(postern, await assertionBy(postern, client_id, asRs256)), REFUSED)
})

/** jose refuses to make such a thing. */
async function assertionWithCrit(postern: TestPostern, clientId: string, { publicJwk, privateKey }: ClientKey) {
  const now = Math.floor(Date.now() / 1000)
  const claims = { iss: clientId, sub: clientId, aud: postern.issuer, jti: 'crit', exp: now + 60 }
  const header = { alg: 'RS256', kid: publicJwk.kid, crit: ['strange'], strange: true }
  const [head, body] = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
  const signature = await crypto.subtle.sign('RSASSA-PKCS1-v1_5', privateKey, Buffer.from(`${head}.${body}`))
  return asAssertion(`${head}.${body}.${Buffer.from(signature).toString('base64url')}`)
}
