/**
 * A client that comes again is answered in one statement, and as if its row had been read: what has changed about it, or
 * about the resource server, counts at the next request.
 */
import t from 'tap'
import { RECALLING_GRANTS } from '../../src/grants/index.ts'
import { setClientSecret } from '../../src/store/client.ts'
import { Recall } from '../../src/store/recall.ts'
import { hashSecret } from '../../src/tokens/secret.ts'
import { basic } from '../support/credentials.ts'
import { captureStatements } from '../support/database.ts'
import { introspect, obtainCode, obtainTokens, post, redeem, refresh } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { addClient, addResource, RESOURCE, startTestPostern } from '../support/postern.ts'
import { startReplica } from '../support/replica.ts'

const CALLBACK = 'https://app.example/callback'
const OTHER = 'https://other.example/mcp'

const postern = await startTestPostern(t)
const person = new Person()
await person.signIn(postern.issuer)

type Answer = { status: number; body: Record<string, unknown> }
type Client = Awaited<ReturnType<typeof addClient>>

/** One request of each grant, by a client with a secret; what it needs is obtained before. */
const REQUESTS: Record<string, (client: Client) => Promise<() => Promise<Answer>>> = {
  client_credentials: async (client) => () => ask(client),
  authorization_code: async (client) => {
    const { code, verifier } = await obtainCode(postern, client, {}, person)
    return () => redeem(postern, client, { code, verifier })
  },
  refresh_token: async (client) => {
    const tokens = await obtainTokens(postern, client, {}, person)
    return () => refresh(postern, client, tokens.refresh_token)
  },
}

async function ask(client: Client, parameters: Record<string, string> = {}): Promise<Answer> {
  const authorization = basic(client.client_id, client.client_secret ?? '')
  return post(postern, '/token', { grant_type: 'client_credentials', ...parameters }, { authorization })
}

/** A client that has been here, so that its row is recalled. */
async function addKnown(grantType: string): Promise<Client> {
  const grantTypes =
    grantType === 'client_credentials' ? ['client_credentials'] : ['authorization_code', 'refresh_token']
  const redirectUris = grantType === 'client_credentials' ? [] : [CALLBACK]
  const tokenEndpointAuthMethod = 'client_secret_post'
  const client = await addClient(postern, { redirectUris, grantTypes, tokenEndpointAuthMethod })
  const request = await REQUESTS[grantType]?.(client)
  t.equal((await request?.())?.status, 200)
  return client
}

t.same(Object.keys(REQUESTS).sort(), [...RECALLING_GRANTS.keys()].sort(), 'every grant that recalls is tested here')

const update = (client: Client) => postern.db.updateTable('client').where('id', '=', client.client_id)

for (const [grantType, prepare] of Object.entries(REQUESTS)) {
  t.test(`${grantType}: one statement for a client that was here before`, async (t) => {
    const client = await addKnown(grantType)
    const request = await prepare(client)
    const statements = captureStatements(t, postern.db)
    t.equal((await request()).status, 200)
    t.equal(statements().length, 1, statements().join('\n---\n'))
  })

  t.test(`${grantType}: what has changed about the client counts at once`, async (t) => {
    const client = await addKnown(grantType)
    const request = await prepare(client)
    await update(client).set({ disabled_at: new Date() }).execute()
    t.match(await request(), { status: 401, body: { error: 'invalid_client' } }, 'disabled')
    await update(client).set({ disabled_at: null, grant_types: [] }).execute()
    t.match(await request(), { status: 400, body: { error: 'unauthorized_client' } }, 'without the grant')
    await update(client)
      .set({ grant_types: [grantType], dpop_bound_access_tokens: true })
      .execute()
    t.match(await request(), { status: 400, body: { error: 'invalid_dpop_proof' } }, 'bound to keys')
    await update(client).set({ dpop_bound_access_tokens: false }).execute()
    await setClientSecret(postern.db, client.client_id, hashSecret('another'))
    t.match(await request(), { status: 401, body: { error: 'invalid_client' } }, 'with another secret')
    await setClientSecret(postern.db, client.client_id, hashSecret(client.client_secret ?? ''))
    t.equal((await request()).status, 200, 'none of that burnt anything')
    await postern.db.deleteFrom('client').where('id', '=', client.client_id).execute()
    t.match(await request(), { status: 401, body: { error: 'invalid_client' } }, 'removed')
  })
}

t.test('what an operator allows the client counts at once', async (t) => {
  const machine = await addKnown('client_credentials')
  await update(machine)
    .set({ bound_scope: ['read'] })
    .execute()
  t.match(await ask(machine), { body: { scope: 'read' } })
  await update(machine).set({ bound_scope: null }).execute()
  t.match(await ask(machine), { body: { scope: 'read write' } })
  await update(machine)
    .set({ resource_ids: [(await addResource(postern, 'https://bound.example/mcp')).id] })
    .execute()
  t.match(await ask(machine, { resource: RESOURCE }), { status: 400, body: { error: 'invalid_target' } })
})

t.test('a client that is bound to a resource gets no other, also when others have asked for that', async (t) => {
  const own = await addResource(postern, 'https://own.example/mcp')
  const free = await addKnown('client_credentials')
  for (const parameters of [{}, { resource: RESOURCE }]) t.equal((await ask(free, parameters)).status, 200)
  const machine = { redirectUris: [], grantTypes: ['client_credentials'] }
  const bound = await addClient(postern, { ...machine, tokenEndpointAuthMethod: 'client_secret_post' })
  await update(bound)
    .set({ resource_ids: [own.id] })
    .execute()
  t.equal((await ask(bound, { resource: 'https://own.example/mcp' })).status, 200)
  t.match(await ask(bound, { resource: RESOURCE }), { status: 400, body: { error: 'invalid_target' } })
  const { body } = await ask(bound)
  t.match(await introspect(postern, body.access_token as string, own), { active: true })
})

t.test('a client that is known may use the grants of its row alone', async (t) => {
  const app = await addClient(postern, { redirectUris: [CALLBACK] })
  const tokens = await obtainTokens(postern, app, {}, person)
  const code = await obtainCode(postern, app, {}, person)
  await update(app)
    .set({ grant_types: ['refresh_token'] })
    .execute()
  t.equal((await refresh(postern, app, tokens.refresh_token)).status, 200)
  t.match(await redeem(postern, app, code), { status: 400, body: { error: 'unauthorized_client' } })
})

t.test('a fault of ours is no reason to try again', async (t) => {
  const machine = await addKnown('client_credentials')
  let sent = 0
  const lost = Object.assign(new Error('the connection is lost'), { code: 'ECONNRESET' })
  t.intercept(postern.db, 'executeQuery', {
    value: async () => {
      sent += 1
      throw lost
    },
  })
  t.match(await ask(machine), { status: 503 })
  t.ok(sent <= 2, 'one, and perhaps one that measures the round trip')
})

t.test('the rows that were read last are recalled, and none that is large', async (t) => {
  const rows = new Recall<number | string>()
  for (let row = 0; row <= 1000; row += 1) rows.keep(postern.db, `${row}`, row)
  t.same(
    ['0', '1', '1000'].map((key) => rows.get(postern.db, key)),
    [undefined, 1, 1000],
  )
  rows.keep(postern.db, '1', 'x'.repeat(5000))
  t.equal(rows.get(postern.db, '1'), undefined)
})

t.test('what has changed about the resource server counts at once', async (t) => {
  const other = await addResource(postern, OTHER, [{ name: 'read', description: 'Read' }])
  const machine = await addKnown('client_credentials')
  const resource = () => postern.db.updateTable('resource').where('id', '=', other.id)
  t.match(await ask(machine, { resource: OTHER }), { body: { scope: 'read' } })
  await resource()
    .set({ scopes: JSON.stringify([{ name: 'write', description: 'Write' }]) as never })
    .execute()
  t.match(await ask(machine, { resource: OTHER }), { body: { scope: 'write' } })
  await resource()
    .set({ uri: `${OTHER}/moved` })
    .execute()
  t.match(await ask(machine, { resource: OTHER }), { status: 400, body: { error: 'invalid_target' } })
  t.match(await ask(machine, { resource: `${OTHER}/moved` }), { body: { scope: 'write' } })

  const toDefault = async (uri: string) => {
    await postern.db.updateTable('resource').set({ is_default: false }).execute()
    await postern.db.updateTable('resource').set({ is_default: true }).where('uri', '=', uri).execute()
  }
  t.match(await ask(machine), { body: { scope: 'read write' } })
  await toDefault(`${OTHER}/moved`)
  const { body } = await ask(machine)
  t.equal(body.scope, 'write', 'of the new default')
  t.match(await introspect(postern, body.access_token as string, other), { active: true })
  await toDefault(RESOURCE)
  t.match(await ask(machine), { body: { scope: 'read write' } })
})

t.test('the form of a URI that fits best counts, also when it was added a moment ago', async (t) => {
  const machine = await addKnown('client_credentials')
  await addResource(postern, 'https://slash.example/mcp', [{ name: 'read', description: 'Read' }])
  t.match(await ask(machine, { resource: 'https://slash.example/mcp/' }), { body: { scope: 'read' } })
  t.match(await ask(machine, { resource: 'https://slash.example/mcp/' }), { body: { scope: 'read' } })
  await addResource(postern, 'https://slash.example/mcp/', [{ name: 'write', description: 'Write' }])
  t.match(await ask(machine, { resource: 'https://slash.example/mcp/' }), { body: { scope: 'write' } })
})

t.test('what one replica knows, another may have changed', async (t) => {
  const replica = await startReplica(t, postern)
  const machine = await addKnown('client_credentials')
  const authorization = basic(machine.client_id, machine.client_secret ?? '')
  for (const at of [postern, replica]) {
    t.match(await post(at, '/token', { grant_type: 'client_credentials' }, { authorization }), { status: 200 })
  }
  await update(machine).set({ disabled_at: new Date() }).execute()
  for (const at of [postern, replica]) {
    t.match(await post(at, '/token', { grant_type: 'client_credentials' }, { authorization }), { status: 401 })
  }
})
