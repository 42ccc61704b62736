import { sql } from 'kysely'
import t from 'tap'
import { fetchDocument } from '../../src/clients/metadata-document.ts'
import { countFetch } from '../../src/clients/network-limit.ts'
import { listClients, setClientDisabled } from '../../src/store/client.ts'
import { removeEndedRows } from '../../src/store/ended-rows.ts'
import { saveDocumentClient } from '../../src/store/metadata-document.ts'
import { ACCEPTED, assertionBy, judgedAs, makeKey } from '../support/assertion.ts'
import { captureStatements, letTimePass } from '../support/database.ts'
import { obtainCode, obtainTokens, post, redeem, refresh } from '../support/flow.ts'
import { APP, VS_CODE } from '../support/metadata-documents.ts'
import { Person } from '../support/person.ts'
import { countRows, type TestPostern } from '../support/postern.ts'
import { openAuthorization, startWithWebsites } from '../support/websites.ts'

t.test('a document is kept for as long as it says, between 30 seconds and a day', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const cases: [Record<string, string>, number][] = [
    [{ 'cache-control': 'no-store' }, 30],
    [{ 'cache-control': 'public, max-age=1' }, 30],
    [{ 'cache-control': 'max-age=600' }, 600],
    [{ 'cache-control': 'max-age=600', age: '500' }, 100],
    [{ 'cache-control': 'max-age=99999999' }, 86_400],
    [{ date: 'Fri, 20 Nov 2026 10:00:00 GMT', expires: 'Fri, 20 Nov 2026 10:20:00 GMT' }, 1200],
    [{ expires: '0', date: 'Fri, 20 Nov 2026 10:00:00 GMT' }, 30],
    [{}, 300],
  ]
  for (const [headers, seconds] of cases) {
    websites.pages.set(APP.client_id, (_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(APP))
    })
    await letTimePass(postern.db, 100_000)
    await openAuthorization(postern, APP)
    const before = websites.fetched.length
    await letTimePass(postern.db, seconds - 5)
    await openAuthorization(postern, APP)
    t.equal(websites.fetched.length, before, `${seconds} seconds not over`)
    await letTimePass(postern.db, 6)
    await openAuthorization(postern, APP)
    t.equal(websites.fetched.length, before + 1, `${seconds} seconds over`)
  }
})

t.test('requests at the same time wait for one fetch', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const pages = await Promise.all(Array.from({ length: 20 }, () => openAuthorization(postern, APP)))
  t.ok(pages.every(({ status }) => status === 303))
  t.equal(websites.fetched.length, 1)
  t.equal(await countRows(postern, 'client'), 1)
})

t.test('without its document nothing new is authorized, and what was granted lives on', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const person = new Person()
  const tokens = await obtainTokens(postern, APP, {}, person)
  const waiting = await obtainCode(postern, APP, {}, person)
  websites.pages.set(APP.client_id, (_request, response) => response.writeHead(500).end())
  await letTimePass(postern.db, 30)
  t.equal((await redeem(postern, APP, waiting)).status, 200, 'still fresh')
  await letTimePass(postern.db, 300)
  const { status, text } = await openAuthorization(postern, APP)
  t.equal(status, 503)
  t.match(text, /can’t be identified right now/)

  const asked = websites.fetched.length
  const refreshed = await refresh(postern, APP, tokens.refresh_token)
  t.equal(refreshed.status, 200)
  t.equal(websites.fetched.length, asked, 'not tried again at once')
  await letTimePass(postern.db, 60)
  const again = await refresh(postern, APP, String(refreshed.body.refresh_token))
  t.equal(again.status, 200)
  t.equal(websites.fetched.length, asked + 1, 'tried after a while')

  websites.pages.delete(APP.client_id)
  await letTimePass(postern.db, 60)
  t.equal((await refresh(postern, APP, String(again.body.refresh_token))).status, 200, 'also when it is gone')
  t.match((await openAuthorization(postern, APP)).status, 400)
})

t.test('documents that reach no grant go away, those with a grant or that are disabled stay', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  for (const name of ['unused', 'disabled']) {
    const document = { ...APP, client_id: `https://app.example/${name}.json` }
    websites.pages.set(document.client_id, document)
    await openAuthorization(postern, document)
  }
  const tokens = await obtainTokens(postern, APP)
  await setClientDisabled(postern.db, 'https://app.example/disabled.json', true)
  await letTimePass(postern.db, 86_500)
  await removeEndedRows(postern.db, { unusedClientSeconds: 86_400 }, 1000)
  const kept = (await listClients(postern.db)).map(({ id }) => id)
  t.same(kept.sort(), [APP.client_id, 'https://app.example/disabled.json'])
  t.equal((await refresh(postern, APP, tokens.refresh_token)).status, 200)
  t.match(
    (await openAuthorization(postern, { ...APP, client_id: 'https://app.example/disabled.json' })).text,
    /not allowed here/,
  )
})

t.test('what an operator decided about a client survives its next fetch', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  await openAuthorization(postern, APP)
  await setClientDisabled(postern.db, APP.client_id, true)
  await letTimePass(postern.db, 400)
  t.match((await openAuthorization(postern, APP)).text, /disabled it/)
  t.equal(websites.fetched.length, 2)
})

t.test('a network that makes us fetch too much has to wait; what is kept is served', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  await openAuthorization(postern, APP)
  const statuses = []
  for (let n = 0; n < 62; n += 1) {
    statuses.push((await openAuthorization(postern, { ...APP, client_id: `https://app.example/${n}.json` })).status)
  }
  t.same(new Set(statuses), new Set([400, 429]))
  t.equal(websites.fetched.length, 60)
  t.equal((await openAuthorization(postern, APP)).status, 303)
  await letTimePass(postern.db, 61)
  t.equal((await openAuthorization(postern, { ...APP, client_id: 'https://app.example/later.json' })).status, 400)
  t.equal(websites.fetched.length, 61)
})

t.test('a document that begins to demand proof is obeyed at the next fetch', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const tokens = await obtainTokens(postern, APP)
  websites.pages.set(APP.client_id, {
    ...APP,
    token_endpoint_auth_method: 'private_key_jwt',
    jwks_uri: 'https://app.example/jwks.json',
  })
  t.equal((await refresh(postern, APP, tokens.refresh_token)).status, 200, 'until it is fetched again')
  await letTimePass(postern.db, 301)
  t.match(await refresh(postern, APP, tokens.refresh_token), { status: 401, body: { error: 'invalid_client' } })
})

/** Lets a network make as many fetches as it may. */
async function exhaust({ context }: TestPostern, network: string): Promise<void> {
  for (let n = 0; n < 60; n += 1) await countFetch(context, network, `https://app.example/${n}.json`)
}

t.test('a network that has to wait keeps nobody else waiting', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  await exhaust(postern, 'theirs')
  const fetchFor = (network: string) => fetchDocument(postern.context, APP.client_id, network)
  const answers = await Promise.allSettled([fetchFor('theirs'), fetchFor('ours'), fetchFor('theirs')])
  t.equal(answers[1]?.status, 'fulfilled')
  t.match(answers[0], { status: 'rejected', reason: { code: 'temporarily_unavailable', status: 429 } })
  t.equal(websites.fetched.length, 1)
})

t.test('all networks of a hoster’s customer count as one', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const statuses = []
  for (let n = 0; n < 61; n += 1) {
    const client_id = `https://app.example/${n}.json`
    const path = ['/token', '/revoke', '/par', '/device_authorization'][n % 4]
    const { statusCode } = await postern.server.inject({
      method: 'POST',
      url: `${postern.issuer}${path}`,
      remoteAddress: `2001:db8:1:${n.toString(16)}::1`,
      payload: new URLSearchParams({ client_id }).toString(),
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
    })
    statuses.push(statusCode)
  }
  t.same(new Set(statuses.slice(0, 60)), new Set([401]))
  t.equal(statuses[60], 429)
  t.equal(websites.fetched.length, 60)
})

t.test('what was granted outlives its document for a day', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const tokens = await obtainTokens(postern, APP)
  websites.pages.delete(APP.client_id)
  await letTimePass(postern.db, 300 + 86_000)
  const refreshed = await refresh(postern, APP, tokens.refresh_token)
  t.equal(refreshed.status, 200)
  await letTimePass(postern.db, 500)
  t.match(await refresh(postern, APP, String(refreshed.body.refresh_token)), {
    status: 401,
    body: { error: 'invalid_client' },
  })
  websites.pages.set(APP.client_id, APP)
  t.equal((await refresh(postern, APP, String(refreshed.body.refresh_token))).status, 200, 'it is back')
})

t.test('a client that was here before is known by its document for as long as that is fresh', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const { refresh_token } = await obtainTokens(postern, APP)
  const next = async (token: unknown) => (await refresh(postern, APP, String(token))).body.refresh_token
  const second = await next(refresh_token)
  const statements = captureStatements(t, postern.db)
  const third = await next(second)
  t.equal(statements().length, 1, 'one statement')
  const asked = websites.fetched.length
  // time passes, and the row stays as it is: letTimePass changes it, so that it has another version
  await sql`alter table client disable trigger renew_version`.execute(postern.db)
  await sql`update client set document_expires_at = now() - interval '1 second'`.execute(postern.db)
  t.ok(await next(third))
  t.equal(websites.fetched.length, asked + 1, 'fetched again')
})

t.test('our own limit does not make outdated keys of a document count', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  const tokens = await obtainTokens(postern, APP)
  const key = await makeKey()
  const client_id = 'https://app.example/keys.json'
  const document = { ...APP, client_id, token_endpoint_auth_method: 'private_key_jwt' }
  websites.pages.set(client_id, { ...document, jwks: { keys: [key.publicJwk] } })
  const attempt = async () => judgedAs(postern, await assertionBy(postern, client_id, key))
  t.equal(await attempt(), ACCEPTED)
  await letTimePass(postern.db, 301)
  await exhaust(postern, '127.0.0.1')
  t.equal(await attempt(), '429 temporarily_unavailable')
  t.equal((await refresh(postern, APP, tokens.refresh_token)).status, 200, 'who has none is served')
  await letTimePass(postern.db, 61)
  t.equal(await attempt(), ACCEPTED)
})

t.test('no new authorization is begun from a document that can not be fetched, at any endpoint', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  websites.pages.set(VS_CODE.client_id, VS_CODE)
  const { client_id } = VS_CODE
  const device = await post(postern, '/device_authorization', { client_id })
  t.equal(device.status, 200)
  websites.pages.set(client_id, (_request, response) => response.writeHead(500).end())
  await letTimePass(postern.db, 301)
  for (const path of ['/device_authorization', '/par']) {
    t.match(await post(postern, path, { client_id }), { status: 503, body: { error: 'temporarily_unavailable' } }, path)
  }
})

t.test('a client that something was granted to makes no room for others', async (t) => {
  const { postern } = await startWithWebsites(t)
  const tokens = await obtainTokens(postern, APP)
  await sql`update client set unused_since = now() - interval '1 hour'`.execute(postern.db)
  const [row] = await listClients(postern.db)
  t.equal(row?.registration_source, '127.0.0.1')
  const another = {
    id: 'https://app.example/another.json',
    name: null,
    tokenEndpointAuthMethod: 'none',
    tokenEndpointAuthMethods: ['none'],
    redirectUris: APP.redirect_uris,
    grantTypes: ['authorization_code'],
    defaultScope: null,
    dpopBoundAccessTokens: false,
    requirePushedAuthorizationRequests: false,
    jwks: null,
    jwksUri: null,
    signingAlgorithm: null,
    description: {},
    consentDigest: Buffer.alloc(32),
    registrationSource: '127.0.0.1',
    seconds: 300,
  }
  await saveDocumentClient(postern.db, another, 1)
  t.equal((await refresh(postern, APP, tokens.refresh_token)).status, 200)
  await saveDocumentClient(postern.db, { ...another, id: 'https://app.example/third.json' }, 1)
  t.notOk(
    (await listClients(postern.db)).some(({ id }) => id === another.id),
    'one that is unused does',
  )
})
