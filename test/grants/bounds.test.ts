/**
 * No grant gives more than was approved, or than an operator allows the client: neither when it is begun nor at the
 * token endpoint, whatever the request asks for (RFC 6749 §3.3, RFC 8707 §2.2).
 */
import t from 'tap'
import { basic } from '../support/credentials.ts'
import { introspect, obtainCode, obtainTokens, post, redeem, refresh } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { addClient, addResource, RESOURCE, startTestPostern } from '../support/postern.ts'

const CALLBACK = 'https://app.example/callback'
const DEVICE_CODE = 'urn:ietf:params:oauth:grant-type:device_code'
const OTHER = 'https://other.example/mcp'

const postern = await startTestPostern(t)
const otherServer = await addResource(postern, OTHER, [
  { name: 'read', description: 'Read' },
  { name: 'write', description: 'Write' },
])

/** A client that an operator allows to read at RESOURCE, and nothing else. */
async function addBounded(grantTypes: string[], tokenEndpointAuthMethod: 'none' | 'client_secret_basic' = 'none') {
  const redirectUris = grantTypes.includes('authorization_code') ? [CALLBACK] : []
  const client = await addClient(postern, { redirectUris, grantTypes, tokenEndpointAuthMethod, boundScope: ['read'] })
  await postern.db
    .updateTable('client')
    .set({ resource_ids: [postern.resourceServer.id] })
    .where('id', '=', client.client_id)
    .execute()
  return client
}

const app = await addBounded(['authorization_code', 'refresh_token'])
const device = await addBounded([DEVICE_CODE])
const machine = await addBounded(['client_credentials'], 'client_secret_basic')

type Asked = { scope?: string; resource?: string }
type Answer = Record<string, unknown>

/** Begins a grant, and what the beginning is answered with: an error, or what is redeemed. */
const BEGINNINGS: Record<string, (asked: Asked) => Promise<Answer>> = {
  authorization_code: async (asked) => {
    const { code, verifier } = await obtainCode(postern, app, asked).catch((error) => ({ code: '', verifier: error }))
    if (code === '') return { error: /error=(\w+)/.exec(String(verifier))?.[1] }
    return (await redeem(postern, app, { code, verifier })).body
  },
  refresh_token: async (asked) => {
    const { refresh_token } = await obtainTokens(postern, app)
    return (await refresh(postern, app, refresh_token, asked)).body
  },
  client_credentials: async (asked) => {
    const authorization = basic(machine.client_id, machine.client_secret ?? '')
    return (await post(postern, '/token', { grant_type: 'client_credentials', ...asked }, { authorization })).body
  },
  [DEVICE_CODE]: async (asked) => {
    const begun = await post(postern, '/device_authorization', { client_id: device.client_id, ...asked })
    return begun.status === 200 ? poll(begun.body) : begun.body
  },
}

for (const [grant, begin] of Object.entries(BEGINNINGS)) {
  t.test(`${grant}: what the client may not have is not granted`, async (t) => {
    const wide = await begin({ scope: 'read write admin' })
    t.equal(wide.scope, 'read')
    t.match(await introspect(postern, String(wide.access_token)), { active: true, scope: 'read', aud: RESOURCE })
    t.same(await introspect(postern, String(wide.access_token), otherServer), { active: false })
    t.equal((await begin({})).scope, 'read', 'nor by asking for nothing')
    t.equal((await begin({ scope: 'write' })).error, 'invalid_scope')
    for (const resource of [OTHER, 'https://unknown.example/', `${RESOURCE}/below`, new URL(RESOURCE).origin]) {
      t.equal((await begin({ resource })).error, 'invalid_target', resource)
    }
  })
}

t.test('a code is redeemed for what was approved, whatever the token request adds', async (t) => {
  const client = await addClient(postern, { redirectUris: [CALLBACK] })
  const code = await obtainCode(postern, client, { scope: 'read' })
  const other = await redeem(postern, client, code, { resource: OTHER, scope: 'read write' })
  t.match(other, { status: 400, body: { error: 'invalid_target' } })
  const { body } = await redeem(postern, client, code, { scope: 'read write' })
  t.equal(body.scope, 'read')
  t.match(await introspect(postern, String(body.access_token)), { scope: 'read' })
  t.equal((await refresh(postern, client, String(body.refresh_token), { scope: 'read write' })).body.scope, 'read')
})

t.test('a device code is redeemed for what was approved, whatever the token request adds', async (t) => {
  const client = await addClient(postern, { redirectUris: [], grantTypes: [DEVICE_CODE] })
  const { client_id } = client
  const { body: begun } = await post(postern, '/device_authorization', { client_id, scope: 'read' })
  const tokens = await poll(begun, { client_id, scope: 'read write', resource: RESOURCE })
  t.equal(tokens.scope, 'read')
  const { body: again } = await post(postern, '/device_authorization', { client_id })
  t.equal((await poll(again, { client_id, resource: OTHER })).error, 'invalid_target')
})

/** What a device gets after its person has approved. */
async function poll(begun: Answer, fields: Record<string, string> = {}): Promise<Answer> {
  const address = String(begun.verification_uri_complete)
  const person = new Person()
  await person.signIn(postern.issuer)
  const entered = { address, html: await (await person.request(address)).text() }
  const user_code = String(begun.user_code)
  const question = { address, html: await (await person.submit(entered, '/device', { user_code })).text() }
  await person.submit(question, '/device/decision', { decision: 'approve' })
  const asked = { grant_type: DEVICE_CODE, device_code: String(begun.device_code), client_id: device.client_id }
  return (await post(postern, '/token', { ...asked, ...fields })).body
}
