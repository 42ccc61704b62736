import { once } from 'node:events'
import { createServer } from 'node:http'
import { buffer } from 'node:stream/consumers'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { updateIdentityProvider } from '../../src/store/identity-provider.ts'
import { allowResourceUpstream } from '../../src/store/resource-upstream.ts'
import { revokeTokenFamily } from '../../src/store/token-family.ts'
import { findUpstreamTokens, leaseUpstreamRefresh, storeUpstreamTokens } from '../../src/store/upstream-token.ts'
import { openText } from '../../src/tokens/encryption.ts'
import { randomId } from '../../src/tokens/secret.ts'
import { sealUpstreamTokens } from '../../src/tokens/upstream-token.ts'
import { sealAnew } from '../../src/users/seal-anew.ts'
import { issueJwts } from '../support/access-token.ts'
import { letTimePass } from '../support/database.ts'
import { obtainTokens } from '../support/flow.ts'
import { watchLog } from '../support/log.ts'
import { Person } from '../support/person.ts'
import { addClient, countRows, startTestPostern, type TestPostern } from '../support/postern.ts'
import { startReplica } from '../support/replica.ts'
import { until } from '../support/until.ts'
import {
  connectUpstream,
  departTo,
  exchangeToken,
  expireUpstream,
  passProvider,
  refreshesOf,
  signInUpstream,
  type UpstreamProvider,
  userinfo,
} from '../support/upstream-provider.ts'

const [FIRST_KEY, SECOND_KEY] = ['the first encryption key, long enough', 'the second encryption key, long enough']

const postern = await startTestPostern(t, { encryptionKey: FIRST_KEY })
const log = watchLog(postern)
const upstream = await connectUpstream(t, postern, { zoe: { preferred_username: 'zoe' } }, { keeps_tokens: true })
const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
await allowResourceUpstream(postern.db, { resourceId: postern.resourceServer.id, providerId: 'company' }, true)
const replica = await startReplica(t, postern)
const zoe = new Person()
await signInUpstream(postern, { account: 'zoe', person: zoe })
const { access_token: accessToken } = await obtainTokens(postern, client, {}, zoe)
const user = await postern.db.selectFrom('upstream_account').select('user_id').executeTakeFirstOrThrow()
const key = { userId: user.user_id, providerId: 'company' }

/** Every token of the provider that was seen, to look for them at the end. */
const seen = new Set<string>()

const exchange = async (at: TestPostern = postern, token = accessToken) => {
  const answer = await exchangeToken(at, token, {}, postern.resourceServer)
  if (answer.status === 200) seen.add(answer.body.access_token as string)
  return answer
}

const expire = () => expireUpstream(postern)
const refreshes = () => refreshesOf(upstream)
const works = async (token: unknown) => (await userinfo(upstream, token)) === 'zoe'

t.test('twenty exchanges at once, at two replicas, refresh once, and all get what it gave', async (t) => {
  await expire()
  const answers = await Promise.all(Array.from({ length: 20 }, (_, n) => exchange(n % 2 === 0 ? postern : replica)))
  t.same([...new Set(answers.map(({ status }) => status))], [200])
  const tokens = [...new Set(answers.map(({ body }) => body.access_token))]
  t.equal(tokens.length, 1)
  t.ok(await works(tokens[0]))
  t.equal(refreshes(), 1)
})

t.test('so they do when the provider’s tokens are shorter than a minute', async (t) => {
  upstream.accessTokenSeconds = 30
  await expire()
  const before = refreshes()
  const answers = await Promise.all(Array.from({ length: 20 }, (_, n) => exchange(n % 2 === 0 ? postern : replica)))
  t.same([...new Set(answers.map(({ status }) => status))], [200])
  t.equal(refreshes(), before + 1)
  await letTimePass(postern.db, 16)
  t.equal((await exchange()).status, 200)
  t.equal(refreshes(), before + 2, 'when half of its time is over')
  upstream.accessTokenSeconds = 3600
})

t.test(
  'who waits for another replica gets what it gave; one that died is waited for no longer than its lease',
  async (t) => {
    await expire()
    const stored = await findUpstreamTokens(postern.db, key)
    const lease = { ...key, id: randomId() }
    t.ok(await leaseUpstreamRefresh(postern.db, lease, stored?.version ?? '', 30))
    const before = refreshes()
    const waiting = exchange()
    await signInUpstream(postern, { account: 'zoe' })
    t.equal((await waiting).status, 200)
    t.equal(refreshes(), before, 'the person signed in meanwhile, which gave new ones')
    t.notOk(
      await leaseUpstreamRefresh(postern.db, lease, stored?.version ?? '', 30),
      'which nobody refreshes by mistake',
    )

    await expire()
    const dead = { ...key, id: randomId() }
    t.ok(await leaseUpstreamRefresh(postern.db, dead, (await findUpstreamTokens(postern.db, key))?.version ?? '', 30))
    await postern.db
      .updateTable('upstream_token')
      .set({ refresh_lease_until: sql`now() - interval '1 second'` })
      .execute()
    t.equal((await exchange()).status, 200)
    t.equal(refreshes(), before + 1)
  },
)

t.test('a refresh that is overtaken by a sign-in leaves the tokens of the sign-in', async (t) => {
  const gate = await startGate(t, upstream)
  await expire()
  const overtaken = exchange()
  await until(() => gate.waiting())
  await postern.db.updateTable('identity_provider').set({ internal_origin: null }).execute()
  await signInUpstream(postern, { account: 'zoe' })
  const { version } = (await findUpstreamTokens(postern.db, key)) ?? {}
  gate.open()
  const { status, body } = await overtaken
  t.equal(status, 200)
  t.ok(await works(body.access_token))
  t.equal((await findUpstreamTokens(postern.db, key))?.version, version)
})

t.test('one that is overtaken by a sign-in without a refresh token keeps what it gave', async (t) => {
  const gate = await startGate(t, upstream)
  await expire()
  const overtaken = exchange()
  await until(() => gate.waiting())
  await letTimePass(postern.db, 45)
  t.ok((await findUpstreamTokens(postern.db, key))?.leased, 'the lease outlasts what a provider may take')
  await postern.db.updateTable('identity_provider').set({ internal_origin: null }).execute()
  await withWrongAnswers({ '/token': { refresh_token: undefined } }, () => signInUpstream(postern, { account: 'zoe' }))
  t.ok((await findUpstreamTokens(postern.db, key))?.leased)
  gate.open()
  t.ok(await works((await overtaken).body.access_token))
  await expire()
  t.ok(await works((await exchange()).body.access_token), 'the refresh token that it rotated was not lost')
})

t.test('what a refresh gave is kept, whatever the ID token beside it is worth', async (t) => {
  t.teardown(() => {
    upstream.failing.clear()
    upstream.wrongClaims = {}
  })
  await postern.db.updateTable('identity_provider').set({ name: 'Company, and its keys anew' }).execute()
  upstream.failing.add('/jwks')
  await expire()
  t.ok(await works((await exchange()).body.access_token))
  upstream.failing.clear()
  upstream.wrongClaims = { iss: 'https://evil.example' }
  await expire()
  t.ok(await works((await exchange()).body.access_token))
  upstream.wrongClaims = {}
  await expire()
  t.ok(await works((await exchange()).body.access_token))
})

t.test('a lifetime or a scope that can’t be stored is left out, and the tokens are kept', async (t) => {
  for (const expires_in of [1e13, 1e300]) {
    await withWrongAnswers({ '/token': { expires_in, scope: 'openid\0 email' } }, async () => {
      await expire()
      const { status, body } = await exchange()
      t.equal(status, 200)
      t.ok(await works(body.access_token))
      t.notOk('expires_in' in body)
      t.equal(body.scope, 'openid email')
      t.equal((await signInUpstream(postern, { account: 'zoe' })).status, 303)
    })
  }
  await expire()
  t.ok(await works((await exchange()).body.access_token))
})

t.test('a grant that is ended during the refresh gets nothing', async (t) => {
  const { access_token: token } = await obtainTokens(postern, client, {}, zoe)
  const gate = await startGate(t, upstream)
  await expire()
  const ended = exchange(postern, token)
  await until(() => gate.waiting())
  const family = postern.db.selectFrom('token_family').select('id').orderBy('created_at', 'desc')
  await revokeTokenFamily(postern.db, (await family.executeTakeFirstOrThrow()).id, 'test')
  gate.open()
  t.match(await ended, { status: 400, body: { error: 'invalid_target' } })
  await postern.db.updateTable('identity_provider').set({ internal_origin: null }).execute()
})

t.test('what a refresh gave is stored when the database comes back, and nobody gets it before', async (t) => {
  await sql`create sequence attempts`.execute(postern.db)
  await sql`
    create function fail_once() returns trigger language plpgsql as $$
    begin
      if nextval('attempts') = 1 then raise exception 'away' using errcode = '57P03'; end if;
      return new;
    end $$`.execute(postern.db)
  await expire()
  await sql`
    create trigger fail_once before update of access_token on upstream_token
    for each row execute function fail_once()`.execute(postern.db)
  const { body } = await exchange()
  await sql`drop trigger fail_once on upstream_token`.execute(postern.db)
  t.ok(await works(body.access_token))
  await expire()
  t.equal((await exchange()).status, 200, 'the rotated refresh token was not lost')
})

t.test('a provider that is away is nobody’s fault here: 503, and it goes on when it is back', async (t) => {
  await upstream.stop()
  t.equal((await exchange()).status, 200, 'what still holds is handed out')
  await expire()
  for (const at of [postern, replica]) {
    const { status, headers, body } = await exchange(at)
    t.equal(status, 503)
    t.equal(body.error, 'temporarily_unavailable')
    t.ok(Number(headers.get('retry-after')) > 0)
  }
  t.ok(log.lines().some(({ reason }) => reason === 'provider_unavailable'))
  await upstream.start()
  t.ok(await works((await exchange(replica)).body.access_token))
})

t.test('a provider that refuses our own credentials is not the person’s fault', async (t) => {
  await postern.db.updateTable('identity_provider').set({ client_id: 'unknown' }).execute()
  await expire()
  t.match(await exchange(), { status: 503, body: { error: 'temporarily_unavailable' } })
  const { event, error } = log.lines().findLast((line) => line.provider === 'company') ?? {}
  t.same({ event, error }, { event: 'provider_unusable', error: 'invalid_client' })
  await postern.db.updateTable('identity_provider').set({ client_id: upstream.clientId }).execute()
  t.equal((await exchange()).status, 200)
})

t.test('a provider that refuses to refresh ends the tokens, until the person signs in there again', async (t) => {
  await upstream.forgetGrants()
  await expire()
  const answers = await Promise.all([exchange(), exchange(replica)])
  for (const { status, body } of [...answers, await exchange()]) {
    t.equal(status, 400)
    t.same(body, {
      error: 'invalid_target',
      error_description: 'the person has to sign in at the identity provider again',
    })
  }
  const reasons = log.lines().map(({ reason }) => reason)
  t.ok(reasons.includes('upstream_tokens_ended'))
  t.ok(reasons.includes('upstream_sign_in_needed'))
  t.equal(log.lines().filter(({ event }) => event === 'upstream_tokens_ended').length, 1)
  await signInUpstream(postern, { account: 'zoe' })
  t.ok(await works((await exchange()).body.access_token))
})

t.test('without a word on its lifetime a token counts as old after five minutes', async (t) => {
  await postern.db.updateTable('upstream_token').set({ expires_at: null }).execute()
  const before = refreshes()
  const { body } = await exchange()
  t.notOk('expires_in' in body)
  t.equal(refreshes(), before)
  await letTimePass(postern.db, 301)
  t.equal((await exchange()).status, 200)
  t.equal(refreshes(), before + 1)
})

t.test('without a refresh token it is handed out as long as it holds', async (t) => {
  const { refresh_token } = await postern.db
    .selectFrom('upstream_token')
    .select('refresh_token')
    .executeTakeFirstOrThrow()
  const withLeft = async (seconds: number) =>
    sql`update upstream_token set refresh_token = null, expires_at = now() + make_interval(secs => ${seconds})`.execute(
      postern.db,
    )
  await withLeft(20)
  t.equal((await exchange()).status, 200)
  await withLeft(-1)
  t.match(await exchange(), { status: 400, body: { error: 'invalid_target' } })
  await postern.db.updateTable('upstream_token').set({ refresh_token }).execute()
  t.equal((await exchange()).status, 200)
})

t.test('a key that opens nothing is an operator’s fault, spoils nothing, and lets people sign in', async (t) => {
  const [wrong, without] = [await startReplica(t, postern), await startReplica(t, postern)]
  wrong.context.config.encryptionKey = SECOND_KEY // with signing keys, a server with such a key would not start
  without.context.config.encryptionKey = undefined
  const refused = { status: 503, body: { error: 'temporarily_unavailable' } }
  t.match(await exchange(wrong), refused)
  await expire()
  t.match(await exchange(wrong), refused)
  t.match(
    log.lines().filter(({ level }) => level === 'error'),
    [
      { event: 'sealed_with_unknown_key', provider: 'company' },
      { event: 'sealed_with_unknown_key', provider: 'company' },
    ],
  )
  t.ok(log.lines().some(({ reason }) => reason === 'upstream_tokens_unopenable'))
  t.notOk((await findUpstreamTokens(postern.db, key))?.leased)
  t.equal((await exchange()).status, 200, 'at a replica that has the key')

  const { version } = (await findUpstreamTokens(postern.db, key)) ?? {}
  const person = new Person()
  const callback = await passProvider(person, await departTo(person, `${postern.issuer}/login`), { account: 'zoe' })
  t.equal((await person.request(callback.replace(postern.issuer, without.issuer))).status, 303)
  t.match(
    log.lines().find(({ event }) => event === 'upstream_tokens_not_kept'),
    { level: 'error', user_id: key.userId },
  )
  t.equal((await findUpstreamTokens(postern.db, key))?.version, version)
})

t.test('a refresh token is not handed out, also where somebody has put it for an access token', async (t) => {
  const columns = ['access_token', 'refresh_token'] as const
  const before = await postern.db.selectFrom('upstream_token').select(columns).executeTakeFirstOrThrow()
  await postern.db
    .updateTable('upstream_token')
    .set({ access_token: before.refresh_token as Buffer })
    .execute()
  t.match(await exchange(), { status: 503, body: { access_token: undefined } })
  await postern.db.updateTable('upstream_token').set(before).execute()
  t.equal((await exchange()).status, 200)
})

t.test('tokens go when the provider’s are no longer kept, and those of a sign-in under way do not stay', async (t) => {
  await updateIdentityProvider(postern.db, 'company', { keeps_tokens: false })
  t.equal(await countRows(postern, 'upstream_token'), 0)
  const tokens = sealUpstreamTokens(postern.context.config, key, { access_token: 'of a sign-in that began before' })
  await storeUpstreamTokens(postern.db, tokens)
  t.equal(await countRows(postern, 'upstream_token'), 0)
  await updateIdentityProvider(postern.db, 'company', { keeps_tokens: true })
  await storeUpstreamTokens(postern.db, { ...tokens, userId: randomId() }) // whose account was unlinked meanwhile
  t.equal(await countRows(postern, 'upstream_token'), 0)
  await signInUpstream(postern, { account: 'zoe' })
  t.equal((await exchange()).status, 200)
})

t.test(
  'the encryption key changes while people go on: first all know both, then it is swapped, then it goes',
  async (t) => {
    await issueJwts(postern)
    const { access_token: jwt } = await obtainTokens(postern, client, {}, zoe)
    const both = await startReplica(t, postern, { encryptionKey: SECOND_KEY, decryptionKeys: [FIRST_KEY] })
    t.equal((await exchange(both, jwt)).status, 200)

    await sealAnew({ ...both.context, config: { ...both.context.config, decryptionKeys: [] } })
    t.match(log.lines().at(-1), { event: 'sealed_with_unknown_key', count: 2 })
    await sealAnew(both.context)
    t.match(log.lines().at(-1), { event: 'sealed_anew', count: 2 })
    const linesBefore = log.lines().length
    await sealAnew(both.context)
    t.equal(log.lines().length, linesBefore, 'once')

    const after = await startReplica(t, postern, { encryptionKey: SECOND_KEY })
    t.equal((await exchange(after, jwt)).status, 200, 'signing keys, too')
    await expire()
    t.ok(await works((await exchange(after, jwt)).body.access_token), 'and the client secret')
    await t.rejects(startReplica(t, postern), { name: 'EncryptionKeyError' }, 'the old key is of no use any more')
  },
)

t.test('the database and the log hold no token of the provider, and not our secret there', async (t) => {
  const config = { encryptionKey: SECOND_KEY, decryptionKeys: [] }
  const rows = await postern.db.selectFrom('upstream_token').selectAll().execute()
  for (const row of rows) {
    for (const kind of ['access_token', 'refresh_token'] as const) {
      seen.add(openText(config, `upstream_token ${kind} company ${key.userId}`, row[kind] as Buffer))
    }
  }
  t.ok(seen.size >= 8, `${seen.size} tokens`)
  const { rows: tables } = await sql<{ name: string }>`
    select table_name as name from information_schema.tables where table_schema = 'public'`.execute(postern.db)
  const dumps = tables.map(async ({ name }) => {
    const { rows } = await sql<{ row: string }>`select row_to_json(x)::text as row from ${sql.table(name)} x`.execute(
      postern.db,
    )
    return rows.map(({ row }) => row).join('\n')
  })
  const places = { database: (await Promise.all(dumps)).join('\n'), log: log.text() }
  t.match(places.database, key.userId)
  t.match(places.log, 'upstream_token_exchanged')
  for (const [place, text] of Object.entries(places)) {
    for (const secret of [...seen, upstream.clientSecret]) {
      for (const form of [secret, Buffer.from(secret).toString('hex'), Buffer.from(secret).toString('base64')]) {
        t.notOk(text.includes(form), place)
      }
    }
  }
})

/** Lets the provider answer wrongly meanwhile. */
async function withWrongAnswers(answers: UpstreamProvider['wrongAnswers'], work: () => Promise<unknown>) {
  upstream.wrongAnswers = answers
  await work()
  upstream.wrongAnswers = {}
}

/** Stands between the server and the provider, and holds its answers to refreshes back until it is opened. */
async function startGate(t: Test, { issuer }: UpstreamProvider) {
  let open = () => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  let held = 0
  const server = createServer(async (request, response) => {
    const { method = 'GET', headers, url } = request
    const body = method === 'GET' ? undefined : await buffer(request)
    const answer = await fetch(`${issuer}${url}`, {
      method,
      headers: { authorization: headers.authorization ?? '', 'content-type': headers['content-type'] ?? '' },
      ...(body === undefined ? {} : { body }),
    })
    const content = Buffer.from(await answer.arrayBuffer())
    if (method === 'POST') {
      held += 1
      await opened
    }
    response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? '' }).end(content)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as { port: number }
  await postern.db
    .updateTable('identity_provider')
    .set({ internal_origin: `http://127.0.0.1:${port}` })
    .execute()
  return { open, waiting: () => held > 0 }
}
