import { decodeProtectedHeader } from 'jose'
import t, { type Test } from 'tap'
import { clientSet } from '../../src/admin/client.ts'
import { resourceAdd, resourceSet } from '../../src/admin/resource.ts'
import { readConfig } from '../../src/config.ts'
import { rotateSigningKey } from '../../src/keys/signing-key.ts'
import { createSigningKeys } from '../../src/keys/signing-keys.ts'
import { removeEndedRows } from '../../src/store/ended-rows.ts'
import { listSigningKeys } from '../../src/store/signing-key.ts'
import { addMachine, issueJwts, obtainMachineToken } from '../support/access-token.ts'
import { letTimePass } from '../support/database.ts'
import { isActive } from '../support/flow.ts'
import { RESOURCE, startTestPostern, type TestPostern } from '../support/postern.ts'
import { startReplica } from '../support/replica.ts'

const DAY = 86_400

t.test('a key signs for its time; the next is published before it takes over', async (t) => {
  const { postern, machine } = await start(t)
  const [first] = await kids(postern)
  await pass(postern, 90 * DAY - 900 - 60)
  t.same(await kids(postern), [first], 'none is due yet')
  await pass(postern, 120)
  const [, second] = await kids(postern)
  t.ok(second, 'published')
  t.equal(decodeProtectedHeader(await obtainMachineToken(postern, machine)).kid, first, 'it does not sign yet')
  await pass(postern, 600)
  t.equal(
    decodeProtectedHeader(await obtainMachineToken(postern, machine)).kid,
    first,
    'nor when /jwks was cached by all',
  )
  await pass(postern, 310)
  t.equal(decodeProtectedHeader(await obtainMachineToken(postern, machine)).kid, second)
  t.same(
    (await listSigningKeys(postern.db)).map(({ state }) => state),
    ['retired', 'signing'],
  )
})

t.test(
  'an old key stays until its last token has expired, and then it goes; its private part goes first',
  async (t) => {
    const { postern, machine } = await start(t)
    const [first] = await kids(postern)
    await rotateSigningKey(postern.context, 'ES256', false)
    await pass(postern, 800)
    const last = await obtainMachineToken(postern, machine)
    t.equal(decodeProtectedHeader(last).kid, first)
    await pass(postern, 410)
    t.equal((await listSigningKeys(postern.db))[0]?.privateKey, null, 'erased')
    await pass(postern, 3000)
    t.equal((await kids(postern))[0], first)
    t.equal(await isActive(postern, last), true, 'in its last minutes')
    await pass(postern, 700)
    t.not((await kids(postern))[0], first)
    t.equal((await kids(postern)).length, 1)
  },
)

t.test('a key that signed nothing needn’t stay', async (t) => {
  const postern = await startTestPostern(t, {}, { bare: true })
  await rotateSigningKey(postern.context, 'ES256', false)
  await pass(postern, 1150)
  t.equal((await kids(postern)).length, 2)
  await pass(postern, 60)
  t.equal((await kids(postern)).length, 1)
})

t.test('a key stays for the longest token that it signed, whatever the lifetimes are later', async (t) => {
  const { postern, machine } = await start(t)
  await postern.db.updateTable('client').set({ access_token_seconds: DAY }).execute()
  const long = await obtainMachineToken(postern, machine)
  await postern.db.updateTable('client').set({ access_token_seconds: 60 }).execute()
  await obtainMachineToken(postern, machine)
  await rotateSigningKey(postern.context, 'ES256', false)
  await pass(postern, DAY - 60)
  t.equal(await isActive(postern, long), true)
  t.equal((await kids(postern)).length, 2)
  await pass(postern, 60 + 900 + 310)
  t.equal((await kids(postern)).length, 1)
})

t.test('of many replicas that find a key due, one makes it', async (t) => {
  const { postern } = await start(t)
  await letTimePass(postern.db, 90 * DAY)
  const replicas = Array.from({ length: 8 }, () => createSigningKeys(postern.context))
  await Promise.all(replicas.map((keys) => keys.tend()))
  t.equal((await kids(postern)).length, 2)
})

t.test('after a long rest the next key is published before it signs, as ever', async (t) => {
  const { postern, machine, token } = await start(t)
  await pass(postern, 400 * DAY)
  t.equal(decodeProtectedHeader(await obtainMachineToken(postern, machine)).kid, decodeProtectedHeader(token).kid)
  t.same(
    (await listSigningKeys(postern.db)).map(({ state }) => state),
    ['signing', 'next'],
  )
})

t.test('a new algorithm takes over like a new key', async (t) => {
  const { postern, machine, token } = await start(t)
  await rotateSigningKey(postern.context, 'RS256', false)
  await postern.context.keys.tend()
  t.same((await postern.context.keys.published()).algorithms, ['ES256', 'RS256'])
  t.equal(decodeProtectedHeader(await obtainMachineToken(postern, machine)).alg, 'ES256')
  await pass(postern, 910)
  t.equal(decodeProtectedHeader(await obtainMachineToken(postern, machine)).alg, 'RS256')
  t.equal(await isActive(postern, token), true)
})

t.test('in an emergency the old keys are withdrawn at once, and what they signed with them', async (t) => {
  const { postern, machine, token } = await start(t)
  const replica = await startReplica(t, postern)
  t.equal(await isActive(replica, token), true)
  await rotateSigningKey(postern.context, 'ES256', false) // one that is published and doesn't sign yet goes, too
  const { kid, withdrawn } = await rotateSigningKey(postern.context, 'ES256', true)
  t.equal(withdrawn.length, 2)
  t.same(await kids(postern), [kid])
  for (const server of [postern, replica]) await server.context.keys.tend() // or five seconds
  for (const server of [postern, replica]) t.equal(await isActive(server, token), false)
  t.equal(decodeProtectedHeader(await obtainMachineToken(replica, machine)).kid, kid)
})

t.test('a server that still signs with a withdrawn key notices before a longer token leaves', async (t) => {
  const { postern, machine } = await start(t)
  const replica = await startReplica(t, postern)
  await replica.context.keys.published()
  const { kid } = await rotateSigningKey(postern.context, 'ES256', true)
  await postern.db.updateTable('client').set({ access_token_seconds: DAY }).execute()
  t.equal(decodeProtectedHeader(await obtainMachineToken(replica, machine)).kid, kid)
  t.equal((await listSigningKeys(postern.db))[0]?.longestTokenSeconds, DAY)
})

async function start(t: Test) {
  const postern = await startTestPostern(t)
  await issueJwts(postern)
  const machine = await addMachine(postern)
  return { postern, machine, token: await obtainMachineToken(postern, machine) }
}

/** Time passes, and housekeeping does what it does every thirty seconds. */
async function pass({ db, context }: TestPostern, seconds: number): Promise<void> {
  await letTimePass(db, seconds)
  await context.keys.tend()
  await removeEndedRows(db, readConfig({}), 100)
  await context.keys.tend()
}

async function kids({ db }: TestPostern): Promise<string[]> {
  return (await listSigningKeys(db)).map(({ kid }) => kid)
}

t.test('lifetimes are noted before the first token is stored', async (t) => {
  const postern = await startTestPostern(t)
  const longest = async () => (await listSigningKeys(postern.db))[0]?.longestTokenSeconds
  t.equal(await longest(), 0, 'no resource server wants JWTs')
  await issueJwts(postern)
  await postern.context.keys.tend()
  t.equal(await longest(), postern.context.config.accessTokenSeconds)
  await postern.db.updateTable('resource').set({ access_token_seconds: DAY }).execute()
  await postern.context.keys.tend()
  t.equal(await longest(), DAY)
})

t.test('a command that raises a lifetime has noted it when it is done', async (t) => {
  const postern = await startTestPostern(t)
  const { config } = postern.context
  const longest = async () => (await listSigningKeys(postern.db))[0]?.longestTokenSeconds
  await resourceSet(config, RESOURCE, { accessTokenSeconds: '7200' })
  t.equal(await longest(), 0, 'no resource server wants JWTs')
  await resourceSet(config, RESOURCE, { tokenFormat: 'jwt' })
  t.equal(await longest(), 7200)
  await resourceSet(config, RESOURCE, { accessTokenSeconds: '7300' })
  t.equal(await longest(), 7300)
  const { client_id } = await addMachine(postern)
  await clientSet(config, client_id, { accessTokenSeconds: '7400' })
  t.equal(await longest(), 7400)
  await rotateSigningKey(postern.context, 'ES256', true)
  t.equal(await longest(), 7400, 'a key that signs at once')
  const other = await startTestPostern(t, {}, { bare: true })
  await resourceAdd(other.context.config, RESOURCE, { tokenFormat: 'jwt' })
  t.equal((await listSigningKeys(other.db))[0]?.longestTokenSeconds, other.context.config.accessTokenSeconds)
})
