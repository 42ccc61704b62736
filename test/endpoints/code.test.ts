import t from 'tap'
import { removeClient, setClientDisabled } from '../../src/store/client.ts'
import { removeEndedRows } from '../../src/store/ended-rows.ts'
import { removeResource } from '../../src/store/resource.ts'
import { setUserDisabled } from '../../src/store/user.ts'
import { letTimePass } from '../support/database.ts'
import { introspect, isActive, obtainCode, obtainTokens, pkce, redeem, refresh, type Tokens } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { addClient, addResource, addUser, countRows, startTestPostern } from '../support/postern.ts'

const CALLBACK = 'https://app.example/callback'

const postern = await startTestPostern(t)
const client = await addClient(postern, { redirectUris: [CALLBACK, 'https://app.example/other'] })
const alice = new Person()

type ObtainedCode = Awaited<ReturnType<typeof obtainCode>>

/** A code that nobody has redeemed. */
function newCode(parameters: Record<string, string> = {}): Promise<ObtainedCode> {
  return obtainCode(postern, client, parameters, alice)
}

/** A code and the tokens that it was redeemed for. */
async function usedCode(): Promise<{ code: ObtainedCode; tokens: Tokens }> {
  const code = await newCode()
  const { status, body } = await redeem(postern, client, code)
  if (status !== 200) throw new Error(`redeemed with ${status}: ${JSON.stringify(body)}`)
  return { code, tokens: body as unknown as Tokens }
}

/** How a redemption was refused, or `200`. */
async function outcome(
  code: ObtainedCode,
  fields: Record<string, string | undefined> = {},
  by = client,
): Promise<string> {
  const { status, body } = await redeem(postern, by, code, fields)
  return status === 200 ? '200' : `${status} ${body.error}`
}

t.test('a code is redeemed for tokens that introspection knows (RFC 6749 §4.1.3, §5.1)', async (t) => {
  const { status, headers, body } = await redeem(postern, client, await newCode())
  t.equal(status, 200)
  t.equal(headers.get('cache-control'), 'no-store')
  t.match(headers.get('content-type'), /^application\/json/)
  t.match(body, { token_type: 'Bearer', expires_in: 3600, scope: 'read write' })
  t.match(await introspect(postern, body.access_token as string), {
    active: true,
    client_id: client.client_id,
    scope: 'read write',
  })
  t.equal((await refresh(postern, client, body.refresh_token as string)).status, 200)
})

t.test('of twenty redemptions at once one succeeds, and its tokens stay active (RFC 6749 §4.1.2)', async (t) => {
  for (let round = 0; round < 3; round += 1) {
    const code = await newCode()
    const families = await countRows(postern, 'token_family')
    const answers = await Promise.all(Array.from({ length: 20 }, () => redeem(postern, client, code)))
    const won = answers.filter(({ status }) => status === 200)
    t.equal(won.length, 1)
    for (const { status, body } of answers) if (status !== 200) t.match(body, { error: 'invalid_grant' })
    const { access_token, refresh_token } = (won[0]?.body ?? {}) as unknown as Tokens
    t.equal(await isActive(postern, access_token), true)
    t.equal((await refresh(postern, client, refresh_token)).status, 200)
    t.equal(await countRows(postern, 'token_family'), families + 1)
  }
})

t.test('the same code again within ten seconds gets nothing and ends nothing', async (t) => {
  const { code, tokens } = await usedCode()
  t.equal(await outcome(code), '400 invalid_grant')
  await letTimePass(postern.db, 3)
  t.equal(await outcome(code), '400 invalid_grant')
  t.equal(await isActive(postern, tokens.access_token), true)
})

t.test('the same code again later ends the family that it started, and only that one (RFC 6749 §4.1.2)', async (t) => {
  await addUser(postern, 'bob')
  const bob = new Person()
  const { code, tokens } = await usedCode()
  const second = (await refresh(postern, client, tokens.refresh_token)).body as unknown as Tokens
  const sibling = await usedCode()
  const byBob = await redeem(postern, client, await obtainCodeAs(bob, 'bob'))
  await letTimePass(postern.db, 11)
  const replays = await Promise.all(Array.from({ length: 10 }, () => outcome(code)))
  t.same([...new Set(replays)], ['400 invalid_grant'])
  t.equal(await isActive(postern, second.access_token), false)
  t.match(await refresh(postern, client, second.refresh_token), { status: 400, body: { error: 'invalid_grant' } })
  t.equal(await isActive(postern, sibling.tokens.access_token), true, 'another installation of the same person')
  t.equal(await isActive(postern, byBob.body.access_token as string), true, 'another person')
  t.equal((await refresh(postern, client, sibling.tokens.refresh_token)).status, 200)
})

async function obtainCodeAs(person: Person, username: string): Promise<ObtainedCode> {
  const signedIn = { authorize: (address: string) => person.authorize(address, { username }) }
  return obtainCode(postern, client, {}, signedIn as Person)
}

t.test('a wrong client, redirect_uri or verifier burns no code (RFC 6749 §4.1.3, RFC 7636 §4.6)', async (t) => {
  const other = await addClient(postern, { redirectUris: [CALLBACK] })
  const code = await newCode()
  t.equal(await outcome(code, {}, other), '400 invalid_grant')
  t.equal(await outcome(code, { redirect_uri: 'https://app.example/other' }), '400 invalid_grant')
  t.equal(await outcome(code, { redirect_uri: `${CALLBACK}/` }), '400 invalid_grant')
  t.equal(await outcome(code, { code_verifier: pkce().verifier }), '400 invalid_grant')
  t.equal(await outcome(code, { code_verifier: 'too short' }), '400 invalid_grant')
  t.equal(await outcome(code, { code_verifier: undefined }), '400 invalid_request')
  t.equal(await outcome(code), '200')
})

t.test('a wrong client, redirect_uri or verifier ends no family, although the code is used', async (t) => {
  const other = await addClient(postern, { redirectUris: [CALLBACK] })
  const { code, tokens } = await usedCode()
  await letTimePass(postern.db, 11)
  t.equal(await outcome(code, {}, other), '400 invalid_grant')
  t.equal(await outcome(code, { redirect_uri: 'https://app.example/other' }), '400 invalid_grant')
  t.equal(await outcome(code, { code_verifier: pkce().verifier }), '400 invalid_grant')
  t.equal(await isActive(postern, tokens.access_token), true)
  t.equal((await refresh(postern, client, tokens.refresh_token)).status, 200)
})

t.test('wrong guesses at the same time do not keep the right one from winning', async (t) => {
  const code = await newCode()
  const verifiers = Array.from({ length: 20 }, (_, n) => (n === 11 ? code.verifier : pkce().verifier))
  const outcomes = await Promise.all(verifiers.map((code_verifier) => outcome(code, { code_verifier })))
  t.same(
    outcomes.flatMap((one, n) => (one === '200' ? [n] : [])),
    [11],
  )
})

t.test('another resource is invalid_target, and burns nothing (RFC 8707 §2.2)', async (t) => {
  await addResource(postern, 'https://other.example.com/mcp')
  const code = await newCode()
  for (const resource of ['https://other.example.com/mcp', 'https://unknown.example.com/', 'not a uri']) {
    t.equal(await outcome(code, { resource }), '400 invalid_target', resource)
  }
  const { status, body } = await redeem(postern, client, code, { resource: 'https://MCP.example.com:443/mcp/' })
  t.equal(status, 200, 'the authorized one may be named in any of its forms')
  t.equal((await introspect(postern, body.access_token as string)).aud, 'https://mcp.example.com/mcp')
})

t.test('when both forms of a resource were added, the other one is another resource', async (t) => {
  const both = await startTestPostern(t)
  await addResource(both, 'https://mcp.example.com/mcp/')
  const app = await addClient(both, { redirectUris: [CALLBACK] })
  const code = await obtainCode(both, app, { resource: 'https://mcp.example.com/mcp' })
  const wrong = await redeem(both, app, code, { resource: 'https://mcp.example.com/mcp/' })
  t.match(wrong, { status: 400, body: { error: 'invalid_target' } })
  t.equal((await redeem(both, app, code, { resource: 'https://mcp.example.com/mcp' })).status, 200)
})

t.test('redirect_uri may be left out at the token endpoint (OAuth 2.1 §4.1.3)', async (t) => {
  t.equal(await outcome(await newCode(), { redirect_uri: undefined }), '200')
})

t.test('a code expires after its minute, and is then a replay of nothing (RFC 6749 §4.1.2)', async (t) => {
  const code = await newCode()
  await letTimePass(postern.db, 61)
  t.equal(await outcome(code), '400 invalid_grant')
})

t.test('a replay is recognised for a day, and afterwards ends nothing', async (t) => {
  const [early, late] = [await usedCode(), await usedCode()]
  await letTimePass(postern.db, 86_000)
  await removeEndedRows(postern.db, postern.context.config, 1000)
  t.equal(await outcome(early.code), '400 invalid_grant')
  t.equal((await refresh(postern, client, early.tokens.refresh_token)).status, 400)
  await letTimePass(postern.db, 500)
  await removeEndedRows(postern.db, postern.context.config, 1000)
  t.equal(await outcome(late.code), '400 invalid_grant')
  t.equal((await refresh(postern, client, late.tokens.refresh_token)).status, 200)
})

t.test('a code of a user or client that was disabled in the meantime is not valid, and burns nothing', async (t) => {
  const app = await addClient(postern, { redirectUris: [CALLBACK] })
  const person = new Person()
  const code = await obtainCode(postern, app, {}, person)
  await setUserDisabled(postern.db, 'alice', true)
  t.equal(await outcome(code, {}, app), '400 invalid_grant')
  await setUserDisabled(postern.db, 'alice', false)
  await setClientDisabled(postern.db, app.client_id, true)
  t.equal(await outcome(code, {}, app), '401 invalid_client')
  await setClientDisabled(postern.db, app.client_id, false)
  t.equal(await outcome(code, {}, app), '200')
})

t.test('a code of a resource server or client that was removed in the meantime is not valid', async (t) => {
  const resource = 'https://short-lived.example.com'
  const { id } = await addResource(postern, resource)
  const forResource = await newCode({ resource })
  await removeResource(postern.db, id)
  t.equal(await outcome(forResource), '400 invalid_grant')
  const app = await addClient(postern, { redirectUris: [CALLBACK] })
  const ofClient = await obtainCode(postern, app)
  await removeClient(postern.db, app.client_id)
  t.equal(await outcome(ofClient, {}, app), '401 invalid_client')
  t.equal(await outcome(ofClient), '400 invalid_grant')
})

t.test('what nobody can have been issued as a code is refused', async (t) => {
  const { code, verifier } = await newCode()
  for (const garbage of [
    'x',
    'ü',
    `${code}A`,
    code.replace('postern_ac_', 'postern_at_'),
    code.slice(0, -1),
    'x'.repeat(8000),
  ]) {
    t.equal(await outcome({ code: garbage, verifier }), '400 invalid_grant', garbage.slice(0, 80))
  }
  t.equal(await outcome({ code, verifier }, { code: undefined }), '400 invalid_request')
  t.equal(await outcome({ code, verifier }), '200')
})

t.test('two redemptions by one person start two families (one client_id stands for every device)', async (t) => {
  const [one, other] = [await obtainTokens(postern, client, {}, alice), await obtainTokens(postern, client, {}, alice)]
  t.not(one.refresh_token, other.refresh_token)
  t.equal(await isActive(postern, one.access_token), true)
  t.equal(await isActive(postern, other.access_token), true)
})
