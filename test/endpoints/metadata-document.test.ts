import t from 'tap'
import { letTimePass } from '../support/database.ts'
import { authorizeUrl, type FlowClient, isActive, obtainTokens, pkce, post, refresh } from '../support/flow.ts'
import { APP, CLAUDE_CODE, CONNECTORS, type MetadataDocument, VS_CODE } from '../support/metadata-documents.ts'
import { Person, textOf } from '../support/person.ts'
import { countRows, type TestPostern } from '../support/postern.ts'
import { openAuthorization, startWithWebsites } from '../support/websites.ts'

/** What the person is asked, if so. */
async function openConsent(postern: TestPostern, person: Person, client: FlowClient): Promise<string | undefined> {
  const asked = await person.request(authorizeUrl(postern, client, pkce().challenge))
  const next = new URL(asked.headers.get('location') ?? '', postern.issuer)
  return next.pathname === '/consent' ? textOf(await (await person.request(next.href)).text()) : undefined
}

for (const { document, redirectUri } of CONNECTORS) {
  t.test(`${document.client_name} connects with its metadata document, and refreshes`, async (t) => {
    const { postern, websites } = await startWithWebsites(t)
    websites.pages.set(document.client_id, document)
    const client = { client_id: document.client_id, redirect_uris: [redirectUri] }
    const tokens = await obtainTokens(postern, client)
    const refreshed = await refresh(postern, client, tokens.refresh_token)
    t.equal(refreshed.status, 200)
    t.ok(await isActive(postern, String(refreshed.body.access_token)))
    t.same(websites.fetched, [document.client_id], 'fetched once for the whole flow')
  })
}

t.test('metadata says whether documents are accepted, and none is fetched when not', async (t) => {
  for (const metadataDocument of [true, false]) {
    const { postern, websites } = await startWithWebsites(t, { metadataDocument })
    const answer = await fetch(`${postern.issuer}/.well-known/oauth-authorization-server`)
    t.match(await answer.json(), { client_id_metadata_document_supported: metadataDocument })
    const { status, text } = await openAuthorization(postern, APP)
    t.equal(status, metadataDocument ? 303 : 400)
    if (!metadataDocument) t.match(text, /not registered here/)
    t.equal(websites.fetched.length, metadataDocument ? 1 : 0)
  }
})

t.test(
  'the consent page names the host of the document, and warns about loopback, which is asked each time',
  async (t) => {
    const { postern, websites } = await startWithWebsites(t)
    const person = new Person()
    await obtainTokens(postern, APP, {}, person)
    const reused = await person.authorize(authorizeUrl(postern, APP, pkce().challenge, { prompt: 'none' }))
    t.ok(reused.searchParams.get('code'), 'a consent for the web is remembered')

    websites.pages.set(CLAUDE_CODE.client_id, CLAUDE_CODE)
    const code = { client_id: CLAUDE_CODE.client_id, redirect_uris: ['http://localhost:7777/callback'] }
    for (const time of ['first', 'second']) {
      const question = await openConsent(postern, person, code)
      t.match(question, /Claude Code from claude\.ai/, time)
      t.match(question, /an application on this computer/, time)
      t.match(question, /Did you just start this yourself\?/, time)
      await obtainTokens(postern, code, {}, person)
    }
  },
)

t.test('consent is asked again when the document says something else about what was judged', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const person = new Person()
  await obtainTokens(postern, APP, {}, person)
  const changes: [string, MetadataDocument, boolean][] = [
    ['nothing', APP, false],
    ['a path', { ...APP, redirect_uris: [...APP.redirect_uris, 'https://app.example/other'] }, false],
    ['a name', { ...APP, client_name: 'Another notebook' }, true],
    ['a host', { ...APP, redirect_uris: [...APP.redirect_uris, 'https://other.example/callback'] }, true],
  ]
  for (const [what, document, asked] of changes) {
    websites.pages.set(APP.client_id, document)
    await letTimePass(postern.db, 301)
    t.equal((await openConsent(postern, person, APP)) !== undefined, asked, what)
  }
  await obtainTokens(postern, APP, {}, person)
  t.equal(await openConsent(postern, person, APP), undefined, 'agreed to anew')
  websites.pages.set(APP.client_id, APP)
  await letTimePass(postern.db, 301)
  t.ok(await openConsent(postern, person, APP), 'the earlier consent does not come back')
})

t.test('a document that is not about its address, or not usable, is refused', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const secret = { client_secret: 'x' }
  const documents: [string, object][] = [
    ['another client_id', { ...APP, client_id: 'https://app.example/other.json' }],
    ['the same address in other letters', { ...APP, client_id: 'https://APP.example/client.json' }],
    ['no client_id', { ...APP, client_id: undefined }],
    ['a secret', { ...APP, ...secret }],
    ['an empty secret', { ...APP, client_secret: null }],
    ['a symmetric method', { ...APP, token_endpoint_auth_method: 'client_secret_basic' }],
    ['an unknown method', { ...APP, token_endpoint_auth_method: 'tls_client_auth' }],
    [
      'a symmetric list',
      { ...APP, token_endpoint_auth_method: undefined, token_endpoint_auth_methods_supported: ['client_secret_post'] },
    ],
    ['a method without keys', { ...APP, token_endpoint_auth_method: 'private_key_jwt' }],
    ['http redirects', { ...APP, redirect_uris: ['http://app.example/callback'] }],
    ['a javascript: redirect', { ...APP, redirect_uris: ['javascript:alert(1)'] }],
    ['no redirects', { ...APP, redirect_uris: [] }],
    ['grants that are not for it', { ...APP, grant_types: ['client_credentials'] }],
    ['a list', [APP]],
    ['6 KB', { ...APP, note: 'x'.repeat(6000) }],
  ]
  for (const [what, document] of documents) {
    websites.pages.set(APP.client_id, document)
    const { status, text, location } = await openAuthorization(postern, APP)
    t.equal(status, 400, what)
    t.equal(location, '', `${what}: nothing is sent to a redirect URI`)
    t.match(text, /can’t be identified/, what)
  }
  t.equal(await countRows(postern, 'client'), 0, 'errors are not kept')
  websites.pages.set(APP.client_id, APP)
  t.equal((await openAuthorization(postern, APP)).status, 303, 'at once when it is corrected')
})

t.test('a client_id that is not a plain https URL is refused before anything is fetched', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  for (const client_id of [
    'http://app.example/client.json',
    'https://app.example',
    'https://app.example/',
    'https://app.example/client.json#fragment',
    'https://user@app.example/client.json',
    'https://user:password@app.example/client.json',
    'https://app.example/a/../client.json',
    'https://app.example/a/%2e%2E/client.json',
    'https://app.example/./client.json',
    'https://app.example/%2e/client.json',
    'https://app.example\\client.json',
    'https://app.example./client.json',
    'https://APP.example/client.json',
    'https://app.example:443/client.json',
    'https:///app.example/client.json',
    'https://app.example/client .json',
    `https://app.example/${'x'.repeat(1100)}`,
    'https://127.1/client.json',
  ]) {
    const { status, text } = await openAuthorization(postern, { ...APP, client_id })
    t.equal(status, 400, client_id)
    t.match(text, /can’t be identified/, client_id)
  }
  t.same(websites.fetched, [])
})

t.test(
  'a private address is refused, whatever the name says, and looks like any other unusable document',
  async (t) => {
    const { postern, websites } = await startWithWebsites(t)
    websites.addresses.set('app.example', ['10.1.2.3'])
    const refused = await openAuthorization(postern, APP)
    websites.addresses.set('app.example', ['93.184.216.34'])
    websites.pages.delete(APP.client_id)
    const missing = await openAuthorization(postern, APP)
    const withoutReference = (text: string) => text.replace(/Reference \S+/, '')
    t.equal(refused.status, 400)
    t.equal(withoutReference(refused.text), withoutReference(missing.text))
    const literal = await openAuthorization(postern, { ...APP, client_id: 'https://169.254.169.254/latest/meta-data' })
    t.equal(withoutReference(literal.text), withoutReference(missing.text))
  },
)

t.test('hosts may be denied, or allowed alone', async (t) => {
  const { postern, websites } = await startWithWebsites(t, {
    metadataDocumentAllow: ['*.app.example', 'other.example'],
    metadataDocumentDeny: ['bad.app.example'],
  })
  for (const [host, accepted] of [
    ['good.app.example', true],
    ['other.example', true],
    ['bad.app.example', false],
    ['app.example', false],
    ['evilapp.example', false],
    ['keys.example', false],
  ] as const) {
    const document = { ...APP, client_id: `https://${host}/client.json` }
    websites.pages.set(document.client_id, document)
    const { status, text } = await openAuthorization(postern, document)
    t.equal(status, accepted ? 303 : 400, host)
    if (!accepted) t.match(text, /not allowed here/, host)
  }
  t.equal(websites.fetched.length, 2)
})

t.test('nothing is fetched for a request that could never pass', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  for (const wrong of [
    { response_type: 'token' },
    { response_type: undefined },
    { code_challenge: undefined },
    { code_challenge: 'short' },
    { code_challenge_method: 'plain' },
    { redirect_uri: 'javascript:alert(1)' },
    { redirect_uri: 'http://app.example/callback' },
    { scope: '"' },
    { prompt: 'none login' },
    { request_uri: 'https://app.example/request' },
  ]) {
    const { status, location } = await openAuthorization(postern, APP, wrong)
    t.equal(status, 400, JSON.stringify(wrong))
    t.equal(location, '', 'its redirect URI is not proven')
  }
  t.same(websites.fetched, [])
})

t.test('at the token endpoint an unknown document is fetched, and its fault is told from ours', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const attempt = (client_id: string) =>
    post(postern, '/token', { grant_type: 'refresh_token', refresh_token: 'unknown', client_id })
  t.match(await attempt(APP.client_id), { status: 400, body: { error: 'invalid_grant' } })
  t.match(await attempt('https://app.example/nothing.json'), { status: 401, body: { error: 'invalid_client' } })
  t.match(await attempt('https://app.example/'), { status: 401, body: { error: 'invalid_client' } })
  websites.pages.set('https://app.example/broken.json', (_request, response) => response.writeHead(500).end())
  const broken = await attempt('https://app.example/broken.json')
  t.match(broken, { status: 503, body: { error: 'temporarily_unavailable' } })
  t.ok(broken.headers.get('retry-after'))
})

t.test('a device may be the first to name its document (RFC 8628 §3.1)', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  websites.pages.set(VS_CODE.client_id, VS_CODE)
  const { client_id } = VS_CODE
  t.match(await post(postern, '/device_authorization', { client_id }), { status: 200, body: { device_code: /./ } })
  t.match(await post(postern, '/device_authorization', { client_id: APP.client_id }), { status: 400 }, 'if it says so')
  t.equal(websites.fetched.length, 2)
})

t.test('one document is many installations: what ends one leaves its siblings alive', async (t) => {
  const { postern } = await startWithWebsites(t)
  const [one, two, three] = await Promise.all([1, 2, 3].map(() => obtainTokens(postern, APP, {}, new Person())))
  if (!one || !two || !three) throw new Error('no tokens')
  await post(postern, '/revoke', { token: one.refresh_token, client_id: APP.client_id })
  t.same(await Promise.all([one, two, three].map(({ access_token }) => isActive(postern, access_token))), [
    false,
    true,
    true,
  ])
  const next = await refresh(postern, APP, two.refresh_token)
  await refresh(postern, APP, String(next.body.refresh_token))
  await letTimePass(postern.db, 200)
  t.match(await refresh(postern, APP, two.refresh_token), { status: 400, body: { error: 'invalid_grant' } }, 'replayed')
  t.equal((await refresh(postern, APP, three.refresh_token)).status, 200)
  t.ok((await obtainTokens(postern, APP, {}, new Person())).access_token, 'and a new one connects')
})

t.test('the sign-in page fetches nothing for a name', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const query = new URLSearchParams({ continue: 'authorize', client_id: APP.client_id })
  const page = await (await fetch(`${postern.issuer}/login?${query}`)).text()
  t.notMatch(page, /Notebook/)
  t.same(websites.fetched, [])
})
