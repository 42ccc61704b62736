import { randomBytes } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import { createServer } from '../../src/server.ts'
import { setClientDisabled } from '../../src/store/client.ts'
import { openDatabase } from '../../src/store/connection.ts'
import { removeEndedRows } from '../../src/store/ended-rows.ts'
import { removeUser, setUserDisabled } from '../../src/store/user.ts'
import { forge, partsOf, storedHash } from '../support/credentials.ts'
import { letTimePass } from '../support/database.ts'
import { introspect, isActive, obtainTokens, post, refresh, type Tokens } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import {
  addClient,
  addResource,
  addUser,
  countRows,
  freePort,
  startTestPostern,
  type TestPostern,
} from '../support/postern.ts'

const CALLBACK = 'https://app.example/callback'
const DAY = 86_400

const postern = await startTestPostern(t)
const client = await addClient(postern, { redirectUris: [CALLBACK] })
const alice = new Person()

/** The first tokens of a new family: another installation of the same client, by the same person. */
function startFamily(parameters: Record<string, string> = {}): Promise<Tokens> {
  return obtainTokens(postern, client, parameters, alice)
}

/** Refreshes, and fails the test when that fails. */
async function rotate(
  refreshToken: string,
  fields: Record<string, string> = {},
  at: Pick<TestPostern, 'issuer'> = postern,
): Promise<Tokens> {
  const { status, body } = await refresh(at, client, refreshToken, fields)
  if (status !== 200) throw new Error(`refreshed with ${status}: ${JSON.stringify(body)}`)
  return body as unknown as Tokens
}

/** A family and its tokens of every generation, the oldest first. */
async function startFamilyWith(rotations: number): Promise<Tokens[]> {
  const generations = [await startFamily()]
  for (let n = 0; n < rotations; n += 1) generations.push(await rotate(generations.at(-1)?.refresh_token ?? ''))
  return generations
}

/** How a refresh was refused. */
async function refusal(refreshToken: string, fields: Record<string, string> = {}, by = client): Promise<string> {
  const { status, body } = await refresh(postern, by, refreshToken, fields)
  return `${status} ${body.error}`
}

const pairOf = ({ access_token, refresh_token }: Record<string, unknown> | Tokens) => `${access_token} ${refresh_token}`

/** Living access tokens of the family that an access token belongs to. */
async function countAccessTokens(accessToken: string): Promise<number> {
  const { rows } = await sql<{ n: number }>`
    select count(*)::integer as n from access_token
    where family_id = (select family_id from access_token where token_hash = ${storedHash(accessToken)})
      and expires_at > now()`.execute(postern.db)
  return rows[0]?.n ?? 0
}

t.test('a refresh rotates both tokens, and ends the old access token at once (RFC 6749 §6)', async (t) => {
  const first = await startFamily()
  const { status, headers, body } = await refresh(postern, client, first.refresh_token)
  t.equal(status, 200)
  t.equal(headers.get('cache-control'), 'no-store')
  t.match(body, { token_type: 'Bearer', expires_in: 3600, scope: 'read write' })
  t.not(body.access_token, first.access_token)
  t.not(body.refresh_token, first.refresh_token)
  t.equal(await isActive(postern, first.access_token), false)
  t.equal(await isActive(postern, body.access_token as string), true)
})

t.test('of twenty refreshes with one token at once, all get one and the same pair', async (t) => {
  let { refresh_token: token } = await startFamily()
  for (let round = 0; round < 4; round += 1) {
    const answers = await Promise.all(Array.from({ length: 20 }, () => refresh(postern, client, token)))
    t.same([...new Set(answers.map(({ status }) => status))], [200])
    t.equal(new Set(answers.map(({ body }) => pairOf(body))).size, 1, 'one pair')
    const { access_token, refresh_token } = (answers[0]?.body ?? {}) as unknown as Tokens
    t.equal(partsOf(refresh_token).generation, round + 1, 'one rotation')
    t.equal(await countAccessTokens(access_token), 1, 'one living access token')
    t.equal(await isActive(postern, access_token), true)
    token = refresh_token
  }
})

t.test('replicas converge on the same pair', async (t) => {
  const port = await freePort()
  const db = openDatabase({ connectionString: postern.databaseUrl }, { poolSize: 5, onError: () => {} })
  const replica = await createServer({ ...postern.context, db })
  await replica.listen({ host: '127.0.0.1', port })
  t.teardown(async () => {
    await replica.close()
    await db.destroy()
  })
  const { refresh_token } = await startFamily()
  const addresses = [postern.issuer, `http://localhost:${port}`]
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, n) => refresh({ issuer: addresses[n % 2] ?? '' }, client, refresh_token)),
  )
  t.same([...new Set(answers.map(({ status }) => status))], [200])
  t.equal(new Set(answers.map(({ body }) => pairOf(body))).size, 1)
})

t.test('tokens of several generations converge on the current pair while their windows are open', async (t) => {
  const generations = await startFamilyWith(5)
  const current = generations.at(-1) as Tokens
  const spent = generations.slice(0, -1)
  for (const { refresh_token } of spent) t.equal(pairOf(await rotate(refresh_token)), pairOf(current))
  t.equal(await isActive(postern, current.access_token), true)

  const all = [...generations, ...generations, ...generations]
  const answers = await Promise.all(all.map(({ refresh_token }) => refresh(postern, client, refresh_token)))
  t.same([...new Set(answers.map(({ status }) => status))], [200], 'also while the current one rotates')
  const newest = await rotate(current.refresh_token)
  t.equal(partsOf(newest.refresh_token).generation, 6, 'which happened once')
  for (const { body } of answers) t.ok([pairOf(current), pairOf(newest)].includes(pairOf(body)))
  for (const { refresh_token } of generations) t.equal(pairOf(await rotate(refresh_token)), pairOf(newest))
  t.equal(await countAccessTokens(newest.access_token), 1)
})

t.test('eight generations back converges, nine generations back is a replay', async (t) => {
  const generations = await startFamilyWith(9)
  const current = generations.at(-1) as Tokens
  t.equal(pairOf(await rotate(generations[1]?.refresh_token ?? '')), pairOf(current))
  t.equal(await refusal(generations[0]?.refresh_token ?? ''), '400 invalid_grant')
  t.equal(await isActive(postern, current.access_token), false)
  t.equal(await refusal(current.refresh_token), '400 invalid_grant')
})

t.test('the answer that converges tells the remaining lifetime', async (t) => {
  const first = await startFamily()
  await rotate(first.refresh_token)
  await letTimePass(postern.db, 50)
  const again = await rotate(first.refresh_token)
  t.ok(again.expires_in <= 3550 && again.expires_in > 3530, String(again.expires_in))
  const { exp } = (await introspect(postern, again.access_token)) as { exp: number }
  t.ok(Math.abs(exp - Date.now() / 1000 - again.expires_in) < 5, 'as introspection says')
})

t.test('the window counts from when a token was superseded, and converging does not extend it', async (t) => {
  const [first, second] = await startFamilyWith(1)
  await letTimePass(postern.db, 100)
  t.equal(pairOf(await rotate(first?.refresh_token ?? '')), pairOf(second as Tokens))
  await letTimePass(postern.db, 21)
  t.equal(await refusal(first?.refresh_token ?? ''), '400 invalid_grant')
  t.equal(await isActive(postern, second?.access_token ?? ''), false)
})

t.test('a spent token outside the window ends its family, and only that one (RFC 9700 §4.14.2)', async (t) => {
  const [first, second] = await startFamilyWith(1)
  const sibling = await startFamily()
  const other = await addClient(postern, { redirectUris: [CALLBACK] })
  const elsewhere = await obtainTokens(postern, other, {}, alice)
  await letTimePass(postern.db, 121)
  t.equal(await refusal(first?.refresh_token ?? ''), '400 invalid_grant')
  t.equal(await isActive(postern, second?.access_token ?? ''), false)
  t.equal(await refusal(second?.refresh_token ?? ''), '400 invalid_grant')
  t.equal(await isActive(postern, sibling.access_token), true, 'another installation lives on')
  t.equal(await isActive(postern, elsewhere.access_token), true)
  t.ok(await rotate(sibling.refresh_token))
  t.ok((await startFamily()).access_token, 'and the person can connect again')
})

t.test('twenty replays at once end the family once, and nobody gets a token', async (t) => {
  const [first, second] = await startFamilyWith(1)
  await letTimePass(postern.db, 121)
  const replays = await Promise.all(Array.from({ length: 20 }, () => refusal(first?.refresh_token ?? '')))
  t.same([...new Set(replays)], ['400 invalid_grant'])
  t.equal(await isActive(postern, second?.access_token ?? ''), false)
})

t.test('a spent token of any age is recognised for as long as the family lives', async (t) => {
  const generations = await startFamilyWith(3)
  await letTimePass(postern.db, 20 * DAY)
  const current = await rotate(generations.at(-1)?.refresh_token ?? '')
  t.equal(await refusal(generations[0]?.refresh_token ?? ''), '400 invalid_grant')
  t.equal(await isActive(postern, current.access_token), false)
})

t.test('a forged secret on a right lineage ends the family', async (t) => {
  for (const generation of [1, 0]) {
    const current = (await startFamilyWith(1)).at(-1) as Tokens
    const forged = forge(current.refresh_token, { generation, secret: randomBytes(16) })
    t.equal(await refusal(forged), '400 invalid_grant')
    t.equal(await isActive(postern, current.access_token), false, `generation ${generation} of 1`)
    t.equal(await refusal(current.refresh_token), '400 invalid_grant')
  }
})

t.test('what nobody can have been issued harms nothing', async (t) => {
  const current = (await startFamilyWith(1)).at(-1) as Tokens
  const token = current.refresh_token
  for (const garbage of [
    forge(token, { generation: 2 }),
    forge(token, { generation: 4_294_967_295 }),
    forge(token, { lineage: randomBytes(32) }),
    `${token.slice(0, -1)}${token.endsWith('A') ? 'B' : 'A'}`,
    `${token}A`,
    token.replace('postern_rt_', 'postern_at_'),
    current.access_token,
    'garbage',
    'ü'.repeat(200),
    'x'.repeat(8000),
  ]) {
    t.equal(await refusal(garbage), '400 invalid_grant', garbage.slice(0, 90))
  }
  t.equal(await isActive(postern, current.access_token), true)
  t.ok(await rotate(token))
})

t.test('without a window a spent token ends its family at once', async (t) => {
  const strict = await startTestPostern(t, { refreshGraceSeconds: 0 })
  const app = await addClient(strict, { redirectUris: [CALLBACK] })
  const first = await obtainTokens(strict, app)
  const second = await refresh(strict, app, first.refresh_token)
  t.equal(second.status, 200)
  t.equal(await countRows(strict, 'pair_key'), 0, 'no pair can be had again')
  t.match(await refresh(strict, app, first.refresh_token), { status: 400, body: { error: 'invalid_grant' } })
  t.equal(await isActive(strict, second.body.access_token as string), false)
})

t.test('convergence and replay survive a restart of the server', async (t) => {
  const before = await startTestPostern(t)
  const app = await addClient(before, { redirectUris: [CALLBACK] })
  const first = await obtainTokens(before, app)
  const second = await refresh(before, app, first.refresh_token)
  await before.server.close()
  const port = await freePort() // kept connections to the old one may not know yet that it is gone
  const server = await createServer({ ...before.context })
  t.teardown(() => server.close())
  await server.listen({ host: '127.0.0.1', port })
  const after = { ...before, server, issuer: `http://localhost:${port}` }
  const again = await refresh(after, app, first.refresh_token)
  t.equal(pairOf(again.body), pairOf(second.body))
  await letTimePass(after.db, 121)
  t.match(await refresh(after, app, first.refresh_token), { status: 400, body: { error: 'invalid_grant' } })
  t.equal(await isActive(after, second.body.access_token as string), false)
})

t.test('another client that presents the token gets invalid_grant, and harms nobody (RFC 6749 §5.2)', async (t) => {
  const thief = await addClient(postern, { redirectUris: ['https://thief.example/'], tokenEndpointAuthMethod: 'none' })
  const [first, second] = (await startFamilyWith(1)) as [Tokens, Tokens]
  const presented = [
    second.refresh_token,
    first.refresh_token,
    forge(second.refresh_token, { secret: randomBytes(16) }),
  ]
  for (const token of presented) t.equal(await refusal(token, {}, thief), '400 invalid_grant')
  await letTimePass(postern.db, 121)
  t.equal(await refusal(first.refresh_token, {}, thief), '400 invalid_grant', 'also outside the window')
  t.equal(await isActive(postern, second.access_token), true)
  t.ok(await rotate(second.refresh_token))
})

t.test('a narrower scope does not shrink what may be asked for later (RFC 6749 §6)', async (t) => {
  const first = await startFamily()
  const narrow = await rotate(first.refresh_token, { scope: 'read' })
  t.equal(narrow.scope, 'read')
  t.equal((await introspect(postern, narrow.access_token)).scope, 'read')
  t.equal((await rotate(narrow.refresh_token)).scope, 'read write')
})

t.test('a refresh that names no scope and resource, or empty ones, keeps those of the grant', async (t) => {
  let { refresh_token: token } = await startFamily({ scope: 'write' })
  for (const fields of [{}, { scope: '' }, { scope: 'openid offline_access' }, { resource: '' }] as Record<
    string,
    string
  >[]) {
    const next = await rotate(token, fields)
    t.equal(next.scope, 'write', JSON.stringify(fields))
    token = next.refresh_token
  }
})

t.test('a wider scope is narrowed to what was granted', async (t) => {
  const first = await startFamily({ scope: 'read' })
  t.equal((await rotate(first.refresh_token, { scope: 'read write offline_access other' })).scope, 'read')
})

t.test('a scope of which nothing was granted is invalid_scope, and burns nothing', async (t) => {
  const first = await startFamily({ scope: 'read' })
  for (const scope of ['write', 'unknown', 'a"b', 'read\twrite']) {
    t.equal(await refusal(first.refresh_token, { scope }), '400 invalid_scope', scope)
  }
  const second = await rotate(first.refresh_token)
  t.equal(partsOf(second.refresh_token).generation, 1)
  t.equal(await refusal(first.refresh_token, { scope: 'write' }), '400 invalid_scope', 'a spent token, too')
  t.equal(await isActive(postern, second.access_token), true)
})

t.test('another resource is invalid_target, and burns nothing (RFC 8707 §2.2)', async (t) => {
  const first = await startFamily()
  await addResource(postern, 'https://other.example.com/mcp')
  const others = [
    'https://other.example.com/mcp',
    'https://unknown.example.com/',
    'https://mcp.example.com/',
    'mcp',
    'https://a/#b',
  ]
  for (const resource of others) {
    t.equal(await refusal(first.refresh_token, { resource }), '400 invalid_target', resource)
  }
  t.equal(await isActive(postern, first.access_token), true)
  const second = await rotate(first.refresh_token)
  t.equal(partsOf(second.refresh_token).generation, 1)
  t.equal(await refusal(first.refresh_token, { resource: 'https://other.example.com/mcp' }), '400 invalid_target')
})

t.test('the granted resource may be named in any of its forms', async (t) => {
  let { refresh_token: token } = await startFamily()
  for (const resource of [
    'https://mcp.example.com/mcp',
    'https://MCP.example.com:443/mcp',
    'https://mcp.example.com/mcp/',
  ]) {
    token = (await rotate(token, { resource })).refresh_token
  }
  t.equal(partsOf(token).generation, 3)
})

t.test('when both forms of a resource were added, the other one is another resource', async (t) => {
  const both = await startTestPostern(t)
  await addResource(both, 'https://mcp.example.com/mcp/')
  const app = await addClient(both, { redirectUris: [CALLBACK] })
  const first = await obtainTokens(both, app, { resource: 'https://mcp.example.com/mcp' })
  const resource = 'https://mcp.example.com/mcp/'
  t.match(await refresh(both, app, first.refresh_token, { resource }), {
    status: 400,
    body: { error: 'invalid_target' },
  })
  const second = await refresh(both, app, first.refresh_token)
  t.equal(second.status, 200)
  t.match(await refresh(both, app, first.refresh_token, { resource }), {
    status: 400,
    body: { error: 'invalid_target' },
  })
  const wrong = await refresh(both, app, second.body.refresh_token as string, { resource })
  t.match(wrong, { status: 400, body: { error: 'invalid_target' } })
})

t.test('who converges with another scope gets an access token of its own beside the current pair', async (t) => {
  const [first, second] = (await startFamilyWith(1)) as [Tokens, Tokens]
  const beside = await rotate(first.refresh_token, { scope: 'read' })
  t.equal(beside.scope, 'read')
  t.equal(beside.expires_in, 3600)
  t.equal(beside.refresh_token, second.refresh_token)
  t.not(beside.access_token, second.access_token)
  t.equal((await introspect(postern, beside.access_token)).scope, 'read')
  t.equal(await isActive(postern, second.access_token), true)
})

t.test('who converges on a pair whose access token has been revoked gets another one', async (t) => {
  const [first, second] = (await startFamilyWith(1)) as [Tokens, Tokens]
  await post(postern, '/revoke', { token: second.access_token, client_id: client.client_id })
  const again = await rotate(first.refresh_token)
  t.not(again.access_token, second.access_token)
  t.equal(again.refresh_token, second.refresh_token)
  t.equal(await isActive(postern, again.access_token), true)
})

t.test('after a revocation and refreshes at once, nothing is active (RFC 7009 §2.1)', async (t) => {
  for (let round = 0; round < 6; round += 1) {
    const first = await startFamily()
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, n) =>
        n === round
          ? post(postern, '/revoke', { token: first.refresh_token, client_id: client.client_id })
          : refresh(postern, client, first.refresh_token, n % 2 === 0 ? {} : { scope: 'read' }),
      ),
    )
    t.equal(answers[round]?.status, 200)
    const issued = answers
      .filter(({ body }) => body.access_token !== undefined)
      .map(({ body }) => body as unknown as Tokens)
    for (const { access_token, refresh_token } of [first, ...issued]) {
      t.equal(await isActive(postern, access_token), false)
      t.equal(await refusal(refresh_token), '400 invalid_grant')
    }
  }
})

t.test('while a user is disabled nothing of theirs holds; afterwards it does again', async (t) => {
  await addUser(postern, 'bob')
  const bob = new Person()
  const first = await obtainTokens(postern, client, {}, {
    authorize: (url) => bob.authorize(url, { username: 'bob' }),
  } as Person)
  await setUserDisabled(postern.db, 'bob', true)
  t.equal(await isActive(postern, first.access_token), false)
  t.equal(await refusal(first.refresh_token), '400 invalid_grant')
  await setUserDisabled(postern.db, 'bob', false)
  t.equal(await isActive(postern, first.access_token), true)
  const second = await rotate(first.refresh_token)

  const [, ...answers] = await Promise.all([
    setUserDisabled(postern.db, 'bob', true),
    ...Array.from({ length: 8 }, () => refresh(postern, client, second.refresh_token)),
  ])
  for (const { body } of answers) {
    if (body.access_token !== undefined) t.equal(await isActive(postern, body.access_token as string), false)
    else t.equal(body.error, 'invalid_grant')
  }
  await setUserDisabled(postern.db, 'bob', false)
  const third = await rotate(second.refresh_token)
  t.equal(await isActive(postern, third.access_token), true)
  await removeUser(postern.db, 'bob')
  t.equal(await isActive(postern, third.access_token), false)
  t.equal(await refusal(third.refresh_token), '400 invalid_grant')
})

t.test('while a client is disabled nothing of it holds; afterwards it does again', async (t) => {
  const app = await addClient(postern, { redirectUris: [CALLBACK], tokenEndpointAuthMethod: 'client_secret_post' })
  const first = await obtainTokens(postern, app, {}, alice)
  await setClientDisabled(postern.db, app.client_id, true)
  t.equal(await isActive(postern, first.access_token), false)
  t.equal(await refusal(first.refresh_token, {}, app), '401 invalid_client')
  await setClientDisabled(postern.db, app.client_id, false)
  t.equal(await isActive(postern, first.access_token), true)
  t.equal((await refresh(postern, app, first.refresh_token)).status, 200)
})

t.test('a refresh token that is not used for its idle time expires; use prolongs it', async (t) => {
  const used = await startFamily()
  const unused = await startFamily()
  await letTimePass(postern.db, 29 * DAY)
  const second = await rotate(used.refresh_token)
  await letTimePass(postern.db, 2 * DAY)
  t.equal(await refusal(unused.refresh_token), '400 invalid_grant')
  t.ok(await rotate(second.refresh_token))
})

t.test('a family ends after its absolute time, however often it is used, and no token outlives it', async (t) => {
  const short = await startTestPostern(t, { familySeconds: 3600, refreshTokenSeconds: 1800, accessTokenSeconds: 600 })
  const app = await addClient(short, { redirectUris: [CALLBACK] })
  let tokens = await obtainTokens(short, app)
  t.equal(tokens.expires_in, 600)
  for (let use = 0; use < 2; use += 1) {
    await letTimePass(short.db, 1700)
    tokens = (await refresh(short, app, tokens.refresh_token)).body as unknown as Tokens
  }
  t.ok(tokens.expires_in <= 200 && tokens.expires_in > 180, String(tokens.expires_in))
  await letTimePass(short.db, 201)
  t.equal(await isActive(short, tokens.access_token), false)
  t.match(await refresh(short, app, tokens.refresh_token), { status: 400, body: { error: 'invalid_grant' } })
})

t.test('what the pair is derived from is erased when the window has closed, and the family lives on', async (t) => {
  const [first, second] = (await startFamilyWith(1)) as [Tokens, Tokens]
  const keys = () => countRows(postern, 'pair_key')
  await letTimePass(postern.db, 90)
  await removeEndedRows(postern.db, postern.context.config, 1000)
  t.equal(await keys(), 1, 'the window is open')
  t.equal(pairOf(await rotate(first.refresh_token)), pairOf(second))
  await letTimePass(postern.db, 91) // a key is kept for up to a minute longer
  await removeEndedRows(postern.db, postern.context.config, 1000)
  t.equal(await keys(), 0)
  t.equal(await refusal(second.refresh_token, { scope: 'unknown' }), '400 invalid_scope')
  t.ok(await rotate(second.refresh_token))
})

t.test('a client that did not register the grant can’t refresh (RFC 6749 §5.2)', async (t) => {
  const app = await addClient(postern, { redirectUris: [CALLBACK], grantTypes: ['authorization_code'] })
  const tokens = await obtainTokens(postern, app, {}, alice)
  t.equal(tokens.refresh_token, undefined)
  t.equal(await isActive(postern, tokens.access_token), true)
  const { refresh_token } = await startFamily()
  t.equal(await refusal(refresh_token, {}, app), '400 unauthorized_client')
  t.ok(await rotate(refresh_token))
})

t.test('a resource without scopes issues an empty scope, and refreshes whatever is asked for', async (t) => {
  const resource = 'https://bare.example.com'
  await addResource(postern, resource)
  const first = await startFamily({ resource })
  const second = await rotate(first.refresh_token, { scope: 'anything' })
  t.equal(partsOf(second.refresh_token).generation, 1)
  const third = await rotate(second.refresh_token)
  t.same([first.scope, second.scope, third.scope], ['', '', ''])
})

t.test('a request without the token is invalid_request', async (t) => {
  for (const refresh_token of [undefined, '']) {
    const answer = await post(postern, '/token', {
      grant_type: 'refresh_token',
      client_id: client.client_id,
      refresh_token,
    })
    t.match(answer, { status: 400, body: { error: 'invalid_request' } })
  }
})
