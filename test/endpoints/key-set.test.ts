import t from 'tap'
import {
  ACCEPTED,
  assertionBy,
  type ClientKey,
  judgedAs,
  makeKey,
  REFUSED,
  registerWithKeys,
} from '../support/assertion.ts'
import { letTimePass } from '../support/database.ts'
import { obtainTokens, post } from '../support/flow.ts'
import { CHATGPT } from '../support/metadata-documents.ts'
import { type Page, startWithWebsites } from '../support/websites.ts'

const JWKS_URI = 'https://keys.example/jwks.json'

t.test('keys at an address are kept, and fetched again for a new one, but not too often', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const [old, next] = [await makeKey('ES256', 'old'), await makeKey('ES256', 'next')]
  websites.pages.set(JWKS_URI, { keys: [old.publicJwk] })
  const { client_id } = await registerWithKeys(postern, { jwks_uri: JWKS_URI })
  const attempt = async (key: ClientKey) => judgedAs(postern, await assertionBy(postern, client_id, key))
  t.same(websites.fetched, [], 'not at registration')
  t.same(await Promise.all([attempt(old), attempt(old), attempt(old)]), [ACCEPTED, ACCEPTED, ACCEPTED])
  t.equal(websites.fetched.length, 1)
  t.equal(await attempt(next), REFUSED, 'unknown, and fetched just now')
  t.equal(websites.fetched.length, 1)
  websites.pages.set(JWKS_URI, { keys: [next.publicJwk] })
  await letTimePass(postern.db, 31)
  t.same(await Promise.all([attempt(next), attempt(next)]), [ACCEPTED, ACCEPTED], 'rotated')
  t.equal(websites.fetched.length, 2)
  t.equal(await attempt(old), REFUSED, 'withdrawn')
  t.equal(websites.fetched.length, 2)
  await letTimePass(postern.db, 301)
  t.equal(await attempt(next), ACCEPTED)
  t.equal(websites.fetched.length, 3, 'too old')
})

t.test('keys that can not be fetched are no fault of the client', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const key = await makeKey()
  const { client_id } = await registerWithKeys(postern, { jwks_uri: JWKS_URI })
  const attempt = async () => judgedAs(postern, await assertionBy(postern, client_id, key))
  const broken: [string, Page][] = [
    ['500', (_request, response) => response.writeHead(500).end()],
    ['404', (_request, response) => response.writeHead(404).end()],
    ['a redirect', (_request, response) => response.writeHead(302, { location: 'https://keys.example/' }).end()],
    ['no key set', { nothing: [] }],
    ['65 KB', { keys: [], note: 'x'.repeat(66_000) }],
  ]
  for (const [what, page] of broken) {
    websites.pages.set(JWKS_URI, page)
    t.equal(await attempt(), '503 temporarily_unavailable', what)
    await letTimePass(postern.db, 31)
  }
  websites.addresses.set('keys.example', ['127.0.0.1'])
  t.equal(await attempt(), '503 temporarily_unavailable', 'a private address')
  const before = websites.fetched.length
  t.equal(before, broken.length, 'which was not connected to')
  websites.addresses.clear()
  websites.pages.set(JWKS_URI, { keys: [key.publicJwk] })
  t.equal(await attempt(), '503 temporarily_unavailable')
  t.equal(websites.fetched.length, before, 'not tried again at once')
  await letTimePass(postern.db, 31)
  t.equal(await attempt(), ACCEPTED)
  websites.pages.delete(JWKS_URI)
  await letTimePass(postern.db, 31)
  t.equal(await attempt(), ACCEPTED, 'what is known serves meanwhile')
  const stranger = await makeKey()
  t.equal(await judgedAs(postern, await assertionBy(postern, client_id, stranger)), '503 temporarily_unavailable')
  t.equal(await attempt(), ACCEPTED, 'also after a failure')
})

t.test('a document may leave its client the choice at each request, as ChatGPT’s does', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const key = await makeKey('RS256', 'chatgpt')
  websites.pages.set(CHATGPT.client_id, CHATGPT)
  websites.pages.set(String(CHATGPT.jwks_uri), { keys: [key.publicJwk] })
  const { client_id } = CHATGPT
  const client = { client_id, redirect_uris: CHATGPT.redirect_uris }
  const tokens = await obtainTokens(postern, client)
  const proven = await assertionBy(postern, client_id, key, { aud: `${postern.issuer}/token` })
  const fields = { grant_type: 'refresh_token', refresh_token: tokens.refresh_token }
  const refreshed = await post(postern, '/token', { ...fields, ...proven })
  t.equal(refreshed.status, 200)
  const again = await post(postern, '/token', {
    ...fields,
    refresh_token: String(refreshed.body.refresh_token),
    client_id,
  })
  t.equal(again.status, 200, 'and without')
  const stranger = await makeKey('RS256', 'chatgpt')
  t.equal(
    await judgedAs(postern, await assertionBy(postern, client_id, stranger)),
    REFUSED,
    'a wrong proof is not ignored',
  )

  await letTimePass(postern.db, 301)
  const { token_endpoint_auth_methods_supported, ...strict } = CHATGPT
  t.ok(token_endpoint_auth_methods_supported)
  websites.pages.set(client_id, strict)
  t.equal(await judgedAs(postern, { client_id }), REFUSED, 'a document that says private_key_jwt alone means it')
  t.equal(await judgedAs(postern, await assertionBy(postern, client_id, key)), ACCEPTED)
})

t.test('a key set with keys of all kinds serves the one that is meant (RFC 7517 §5)', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const [rsa, ec, edwards, unnamed] = await Promise.all([
    makeKey('RS256', 'same'),
    makeKey('ES256', 'same'),
    makeKey('EdDSA', 'same'),
    makeKey('ES256', 'unnamed'),
  ])
  const { kid, ...withoutName } = unnamed.publicJwk
  t.ok(kid)
  websites.pages.set(JWKS_URI, {
    keys: [
      { kty: 'unheard of' },
      { kty: 'RSA', n: '!', e: 'AQAB' },
      { ...(await makeKey('RS256')).publicJwk, use: 'enc', kid: 'same' },
      rsa.publicJwk,
      ec.publicJwk,
      edwards.publicJwk,
      withoutName,
    ],
  })
  const { client_id } = await registerWithKeys(postern, { jwks_uri: JWKS_URI })
  for (const key of [rsa, ec, edwards, unnamed]) {
    t.equal(await judgedAs(postern, await assertionBy(postern, client_id, key)), ACCEPTED, key.algorithm)
  }
})

t.test('of a key set ten keys for signatures are kept, for an hour at the most', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const keys = await Promise.all(Array.from({ length: 11 }, () => makeKey('ES256')))
  const others = await Promise.all(Array.from({ length: 10 }, () => makeKey('ES256')))
  const forOtherUses = others.map(({ publicJwk }, n) => ({ ...publicJwk, ...(n % 2 ? { use: 'enc' } : { alg: 'x' }) }))
  const set = JSON.stringify({ keys: [...forOtherUses, ...keys.map(({ publicJwk }) => publicJwk)] })
  websites.pages.set(JWKS_URI, (_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'max-age=86400' }).end(set)
  })
  const { client_id } = await registerWithKeys(postern, { jwks_uri: JWKS_URI })
  for (const [n, key] of keys.entries()) {
    t.equal(await judgedAs(postern, await assertionBy(postern, client_id, key)), n < 10 ? ACCEPTED : REFUSED, `${n}`)
  }
  t.equal(websites.fetched.length, 1)
  await letTimePass(postern.db, 3601)
  t.equal(await judgedAs(postern, await assertionBy(postern, client_id, keys[0] as ClientKey)), ACCEPTED)
  t.equal(websites.fetched.length, 2)
})

t.test('the address of keys is kept in its canonical form, and is not longer than an index can take', async (t) => {
  const { postern } = await startWithWebsites(t)
  t.match(await registerWithKeys(postern, { jwks_uri: 'https://keys.example/ü' }), {
    status: 201,
    jwks_uri: 'https://keys.example/%C3%BC',
  })
  for (const long of ['x'.repeat(1024), '漢'.repeat(200)]) {
    t.match(await registerWithKeys(postern, { jwks_uri: `https://keys.example/${long}` }), {
      status: 400,
      error: 'invalid_client_metadata',
    })
  }
})
