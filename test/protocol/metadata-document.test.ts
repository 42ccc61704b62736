import t from 'tap'
import type { ClientMetadata } from '../../src/protocol/client-metadata.ts'
import {
  clientIdUrlProblem,
  consentDigest,
  isClientIdUrl,
  isHostAllowed,
  readDocumentMethods,
} from '../../src/protocol/metadata-document.ts'

const ADDRESS = 'https://app.example/client.json'

t.test('a client_id is an https URL with a path, in canonical form (CIMD §3)', async (t) => {
  for (const url of [
    ADDRESS,
    'https://app.example:8443/client.json',
    'https://app.example/a/b.c/%2Fx',
    'https://app.example/client.json?redirect_uri=http%3A%2F%2F127.0.0.1%2Fcallback',
    'https://app.example/...',
    'https://app.example/a%2eb',
  ])
    t.equal(clientIdUrlProblem(url, false), undefined, url)
  for (const [url, problem] of [
    ['http://app.example/client.json', 'is not an https URL'],
    ['https://app.example', 'has no path'],
    ['https://app.example/', 'has no path'],
    ['https://app.example/?a=b', 'has no path'],
    [`${ADDRESS}#`, 'has a fragment'],
    ['https://a@app.example/client.json', 'holds credentials'],
    ['https://app.example/a/../b', 'is not in canonical form'],
    ['https://app.example/a/%2E%2e/b', 'is not in canonical form'],
    ['https://app.example/a/b/.%2e', 'is not in canonical form'],
    ['https://app.example/./b', 'is not in canonical form'],
    ['https://app.example/%2e/b', 'is not in canonical form'],
    ['https://app.example\\b', 'is not in canonical form'],
    ['https://app.example/b\t', 'is not in canonical form'],
    ['https://\u0430pp.example/b', 'is not in canonical form'],
    ['https://app.example./b', 'has a host that ends in a dot'],
    ['https://', 'is not a URL'],
    [`https://app.example/${'x'.repeat(1024)}`, 'is too long'],
  ] as const)
    t.equal(clientIdUrlProblem(url, false), problem, url)
  t.equal(clientIdUrlProblem('http://localhost:8080/client.json', true), undefined, 'in development')
})

t.test('an identifier that begins like a URL is never that of a registered client', async (t) => {
  t.ok(isClientIdUrl(ADDRESS))
  t.ok(isClientIdUrl('HTTPS://app.example/'))
  t.ok(isClientIdUrl('http://localhost/'))
  t.notOk(isClientIdUrl('0c5a4f6e-9d1f-4f0e-8f5c-3a1d0f4f2b7e'))
  t.notOk(isClientIdUrl('https'))
})

t.test('what is denied stays so, and what is allowed is allowed alone', async (t) => {
  const all = { allow: undefined, deny: [] }
  t.ok(isHostAllowed('app.example', all))
  t.notOk(isHostAllowed('app.example', { allow: undefined, deny: ['app.example'] }))
  t.ok(isHostAllowed('sub.app.example', { allow: undefined, deny: ['app.example'] }), 'a name is that host alone')
  const rules = { allow: ['app.example', '*.other.example'], deny: ['*.bad.other.example'] }
  t.ok(isHostAllowed('app.example', rules))
  t.ok(isHostAllowed('a.other.example', rules))
  t.ok(isHostAllowed('a.b.other.example', rules))
  t.notOk(isHostAllowed('other.example', rules))
  t.notOk(isHostAllowed('.other.example', rules))
  t.notOk(isHostAllowed('another.example', rules))
  t.notOk(isHostAllowed('x.bad.other.example', rules))
  t.notOk(isHostAllowed('anything.example', { allow: [], deny: [] }), 'an empty list allows nothing')
})

t.test('a public document knows no shared secret, and may leave the choice (CIMD §4.1)', async (t) => {
  const methods = (document: object, hasKeys = true) =>
    readDocumentMethods(ADDRESS, { client_id: ADDRESS, ...document }, hasKeys)
  const list = 'token_endpoint_auth_methods_supported'
  const one = 'token_endpoint_auth_method'
  t.same(methods({}), ['none'])
  t.same(methods({ [one]: '' }), ['none'])
  t.same(methods({ [one]: 'private_key_jwt' }), ['private_key_jwt'])
  t.same(methods({ [one]: 'private_key_jwt', [list]: ['none', 'private_key_jwt'] }), ['none', 'private_key_jwt'])
  t.same(methods({ [list]: ['private_key_jwt', 'client_secret_basic'] }), ['private_key_jwt'], 'the list alone')
  t.same(methods({ [one]: 'private_key_jwt', [list]: ['none', 'private_key_jwt'] }, false), ['none'], 'without keys')
  for (const document of [
    { [one]: 'client_secret_basic' },
    { [one]: 'client_secret_jwt', [list]: ['none'] },
    { [one]: 1 },
    { [list]: ['client_secret_post'] },
    { client_secret: 'x' },
    { client_secret: undefined },
    { client_secret_expires_at: 0 },
    { client_id: `${ADDRESS}?` },
    { client_id: undefined },
  ])
    t.throws(() => methods(document), { code: 'invalid_client_metadata' }, JSON.stringify(document))
  t.throws(() => methods({ [one]: 'private_key_jwt' }, false), { code: 'invalid_client_metadata' })
})

t.test('what a person judges changes the digest, and nothing else does', async (t) => {
  const metadata: ClientMetadata = {
    name: 'Notebook',
    redirectUris: ['https://app.example/callback', 'http://localhost/callback'],
    tokenEndpointAuthMethod: 'none',
    grantTypes: ['authorization_code'],
    defaultScope: undefined,
    dpopBoundAccessTokens: false,
    description: {},
  }
  const digest = (changes: Partial<ClientMetadata>) =>
    consentDigest({ ...metadata, ...changes }, ['none']).toString('hex')
  const before = digest({})
  const uris = metadata.redirectUris
  t.equal(digest({ redirectUris: [...uris].reverse() }), before)
  t.equal(digest({ redirectUris: [...uris, 'https://app.example/other', 'http://127.0.0.1:1/x'] }), before)
  t.equal(
    digest({ defaultScope: ['read'], grantTypes: [], description: { logo_uri: 'https://app.example/x' } }),
    before,
  )
  t.not(digest({ name: 'Another' }), before)
  t.not(digest({ redirectUris: [...uris, 'https://other.example/callback'] }), before)
  t.not(digest({ redirectUris: [...uris, 'com.example.app:/callback'] }), before)
  t.not(digest({ redirectUris: uris.slice(1) }), before)
  t.not(consentDigest(metadata, ['private_key_jwt']).toString('hex'), before)
})
