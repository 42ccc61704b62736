import { sql } from 'kysely'
import t from 'tap'
import type { ResourceScope } from '../../src/store/database.ts'
import { removeEndedRows } from '../../src/store/ended-rows.ts'
import { letTimePass } from '../support/database.ts'
import { introspect, post, refresh } from '../support/flow.ts'
import { VS_CODE } from '../support/metadata-documents.ts'
import { Person, textOf } from '../support/person.ts'
import {
  addClient,
  addResource,
  addUser,
  PASSWORD,
  RESOURCE,
  startTestPostern,
  type TestPostern,
} from '../support/postern.ts'
import { startWithWebsites } from '../support/websites.ts'

const GRANT = 'urn:ietf:params:oauth:grant-type:device_code'

async function addDevice(postern: TestPostern) {
  return addClient(postern, { name: 'Television', redirectUris: [], grantTypes: [GRANT, 'refresh_token'] })
}

async function startDevice(postern: TestPostern, clientId: string, fields: Record<string, string> = {}) {
  const { status, body } = await post(postern, '/device_authorization', { client_id: clientId, ...fields })
  if (status !== 200) throw new Error(JSON.stringify(body))
  return body as { device_code: string; user_code: string; verification_uri: string; verification_uri_complete: string }
}

function poll(postern: TestPostern, clientId: string, deviceCode: string, resource?: string) {
  return post(postern, '/token', { grant_type: GRANT, device_code: deviceCode, client_id: clientId, resource })
}

/** Signs in if asked, enters the code, and returns the page that comes. */
async function open(person: Person, address: string, username = 'alice') {
  let response = await person.request(address)
  if (response.status === 303) {
    const login = new URL(response.headers.get('location') ?? '', address).href
    const page = { address: login, html: await (await person.request(login)).text() }
    response = await person.submit(page, '/login', { username, password: PASSWORD })
    response = await person.request(new URL(response.headers.get('location') ?? '', address).href)
  }
  const page = { address, html: await response.text() }
  const answer = await person.submit(page, '/device', {
    user_code: new URL(address).searchParams.get('user_code') ?? '',
  })
  return { status: answer.status, address, html: await answer.text() }
}

t.test('a person approves a device, which gets its tokens at the next poll (RFC 8628 §3)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addDevice(postern)
  const device = await startDevice(postern, client.client_id, { scope: 'read' })
  t.match(device.user_code, /^[B-DF-HJ-NP-TV-XZ]{4}-[B-DF-HJ-NP-TV-XZ]{4}$/)
  t.match((await poll(postern, client.client_id, device.device_code)).body, { error: 'authorization_pending' })
  t.match(
    (await poll(postern, client.client_id, device.device_code)).body,
    { error: 'slow_down' },
    'at once again (RFC 8628 §3.5)',
  )

  const person = new Person()
  const question = await open(person, device.verification_uri_complete)
  t.equal(question.status, 200)
  t.match(textOf(question.html), 'Television')
  t.match(textOf(question.html), device.user_code)
  const done = await person.submit(question, '/device/decision', { decision: 'approve' })
  t.match(textOf(await done.text()), 'Device connected')

  const tokens = await poll(postern, client.client_id, device.device_code)
  t.match(tokens, { status: 200, body: { scope: 'read', token_type: 'Bearer' } })
  t.match(await introspect(postern, tokens.body.access_token as string), { active: true, username: 'alice' })
  t.equal((await refresh(postern, client, tokens.body.refresh_token as string)).status, 200)
  t.match((await poll(postern, client.client_id, device.device_code)).body, { error: 'invalid_grant' }, 'redeemed once')
})

t.test('a denial, an expired code and a code of another client get no tokens (RFC 8628 §3.5)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addDevice(postern)
  const other = await addDevice(postern)
  const denied = await startDevice(postern, client.client_id)
  const person = new Person()
  const question = await open(person, denied.verification_uri_complete)
  await person.submit(question, '/device/decision', { decision: 'deny' })
  t.match(await poll(postern, client.client_id, denied.device_code), { status: 400, body: { error: 'access_denied' } })
  const expired = await startDevice(postern, client.client_id)
  t.match((await poll(postern, other.client_id, expired.device_code)).body, { error: 'invalid_grant' })
  await letTimePass(postern.db, 601)
  t.match((await poll(postern, client.client_id, expired.device_code)).body, { error: 'expired_token' })
  t.match(await poll(postern, client.client_id, 'garbage'), { status: 400, body: { error: 'invalid_grant' } })
})

t.test('nobody but the session that opened a code may decide (RFC 8628 §5.4)', async (t) => {
  const postern = await startTestPostern(t)
  await addUser(postern, 'mallory')
  const client = await addDevice(postern)
  const device = await startDevice(postern, client.client_id)
  const alice = new Person()
  const question = await open(alice, device.verification_uri_complete)
  const mallory = new Person()
  const refused = await open(mallory, device.verification_uri_complete, 'mallory')
  t.equal(refused.status, 404, 'another person can’t open it')
  const elsewhere = new Person()
  t.equal((await open(elsewhere, device.verification_uri_complete)).status, 404, 'nor the same person elsewhere')
  const own = await startDevice(postern, client.client_id)
  const other = await open(mallory, own.verification_uri_complete)
  const crossed = await mallory.submit(other, '/device/decision', { decision: 'approve', user_code: device.user_code })
  t.equal(crossed.status, 404, 'nor decide it with a form of another code')
  const second = await startDevice(postern, client.client_id)
  const form = await open(elsewhere, second.verification_uri_complete)
  const fields = { decision: 'approve', user_code: device.user_code }
  t.equal((await elsewhere.submit(form, '/device/decision', fields)).status, 404, 'whoever signed in there')
  t.match((await poll(postern, client.client_id, device.device_code)).body, { error: 'authorization_pending' })
  await alice.submit(question, '/device/decision', { decision: 'approve' })
  t.equal((await poll(postern, client.client_id, device.device_code)).status, 200)
})

t.test(
  'a device gets tokens for the resource that was approved, and another one burns nothing (RFC 8707 §2.2)',
  async (t) => {
    const postern = await startTestPostern(t)
    const other = 'https://other.example/mcp'
    await addResource(postern, other, [{ name: 'read', description: 'Read' }])
    const client = await addDevice(postern)
    const device = await startDevice(postern, client.client_id, { resource: RESOURCE })
    const pollFor = (resource?: string) => poll(postern, client.client_id, device.device_code, resource)
    t.match((await pollFor(other)).body, { error: 'authorization_pending' })
    const person = new Person()
    await person.submit(await open(person, device.verification_uri_complete), '/device/decision', {
      decision: 'approve',
    })
    for (const wrong of [other, `${RESOURCE}/below`, 'https://unknown.example/', 'x']) {
      t.match(await pollFor(wrong), { status: 400, body: { error: 'invalid_target' } }, wrong)
    }
    const { status, body } = await pollFor(`${RESOURCE}/`)
    t.equal(status, 200, 'in any form')
    t.match(await introspect(postern, body.access_token as string), { active: true, aud: RESOURCE })
    t.match((await pollFor(other)).body, { error: 'invalid_grant' }, 'redeemed once')
  },
)

t.test('20 polls of one approved code get one pair of tokens', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addDevice(postern)
  const device = await startDevice(postern, client.client_id)
  const person = new Person()
  await person.submit(await open(person, device.verification_uri_complete), '/device/decision', { decision: 'approve' })
  const polls = await Promise.all(Array.from({ length: 20 }, () => poll(postern, client.client_id, device.device_code)))
  t.equal(polls.filter(({ status }) => status === 200).length, 1)
})

t.test('guesses at user codes are bounded for each person (RFC 8628 §5.1)', async (t) => {
  const postern = await startTestPostern(t)
  const person = new Person()
  const statuses: number[] = []
  for (let guess = 0; guess < 21; guess += 1) {
    statuses.push(
      (await open(person, `${postern.issuer}/device?user_code=BBBB-CCC${'BCDFGHJKLMNPQRSTVWXZB'[guess]}`)).status,
    )
  }
  t.same(statuses, [...Array.from({ length: 20 }, () => 404), 429])
})

t.test('a device that polls late learns that its code has expired (RFC 8628 §3.5)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addDevice(postern)
  const device = await startDevice(postern, client.client_id)
  await letTimePass(postern.db, 601)
  await removeEndedRows(postern.db, { unusedClientSeconds: 86_400 }, 1000)
  t.match((await poll(postern, client.client_id, device.device_code)).body, { error: 'expired_token' })
  await letTimePass(postern.db, 600)
  await removeEndedRows(postern.db, { unusedClientSeconds: 86_400 }, 1000)
  t.match((await poll(postern, client.client_id, device.device_code)).body, { error: 'invalid_grant' })
})

t.test('a device gets what the person was shown, and nothing that the resource server offers later', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addDevice(postern)
  const device = await startDevice(postern, client.client_id, { scope: 'read write' })
  const offer = async (scopes: ResourceScope[]) =>
    postern.db
      .updateTable('resource')
      .set({ scopes: sql`${JSON.stringify(scopes)}::jsonb` })
      .execute()
  const read = { name: 'read', description: 'Read your notes' }
  await offer([read])
  const person = new Person()
  const question = await open(person, device.verification_uri_complete)
  t.notMatch(textOf(question.html), 'Change your notes')
  await person.submit(question, '/device/decision', { decision: 'approve' })
  await offer([read, { name: 'write', description: 'Change your notes' }])
  t.match(await poll(postern, client.client_id, device.device_code), { status: 200, body: { scope: 'read' } })
})

t.test('one network gets so many device codes in a minute', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addDevice(postern)
  await startDevice(postern, client.client_id)
  await postern.db.updateTable('throttle').set({ attempts: 600 }).execute()
  t.match(await post(postern, '/device_authorization', { client_id: client.client_id }), {
    status: 429,
    body: { error: 'temporarily_unavailable' },
  })
})

t.test('who asks by a metadata document is known only while the document says so', async (t) => {
  const { postern, websites } = await startWithWebsites(t)
  websites.pages.set(VS_CODE.client_id, VS_CODE)
  const device = await startDevice(postern, VS_CODE.client_id)
  const person = new Person()
  t.match(textOf((await open(person, device.verification_uri_complete)).html), 'Visual Studio Code')
  await letTimePass(postern.db, 301)
  const renamed = JSON.stringify({ ...VS_CODE, client_name: 'Renamed' })
  websites.pages.set(VS_CODE.client_id, (_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'max-age=60' }).end(renamed)
  })
  const question = await open(person, device.verification_uri_complete)
  t.match(textOf(question.html), 'Renamed', 'as it is called now')
  await letTimePass(postern.db, 61)
  websites.pages.delete(VS_CODE.client_id)
  t.equal((await person.submit(question, '/device/decision', { decision: 'approve' })).status, 400, 'withdrawn')
})
