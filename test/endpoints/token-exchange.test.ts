import { decodeJwt } from 'jose'
import t from 'tap'
import { supportedGrantTypes } from '../../src/grants/index.ts'
import { listGrants } from '../../src/store/grant.ts'
import { allowResourceUpstream, disallowResourceUpstream } from '../../src/store/resource-upstream.ts'
import { revokeTokenFamily } from '../../src/store/token-family.ts'
import { linkUpstreamAccount, unlinkUpstreamAccount } from '../../src/store/upstream-account.ts'
import { issueCredential } from '../../src/tokens/secret.ts'
import { addMachine, issueJwts, obtainMachineToken } from '../support/access-token.ts'
import { basic } from '../support/credentials.ts'
import { letTimePass } from '../support/database.ts'
import { authorizeUrl, introspect, obtainTokens, pkce, post } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { addClient, addResource, countRows, RESOURCE, startTestPostern } from '../support/postern.ts'
import {
  ACCESS_TOKEN,
  connectUpstream,
  EXCHANGE,
  exchangeToken,
  expireUpstream,
  refreshesOf,
  signInUpstream,
  userinfo,
} from '../support/upstream-provider.ts'

const REFRESH_TOKEN = 'urn:ietf:params:oauth:token-type:refresh_token'
const OTHER = 'https://other.example.com/mcp'
const CALLBACK = 'https://app.example/callback'

const postern = await startTestPostern(t, { encryptionKey: 'encryption key of these tests, 1' })
const upstream = await connectUpstream(
  t,
  postern,
  { zoe: { preferred_username: 'zoe', email: 'zoe@company.example' } },
  { keeps_tokens: true },
)
const client = await addClient(postern, { redirectUris: [CALLBACK] })
const other = await addResource(postern, OTHER)
const own = { resourceId: postern.resourceServer.id, providerId: 'company' }
await allowResourceUpstream(postern.db, own, true)
const zoe = new Person()
await signInUpstream(postern, { account: 'zoe', person: zoe })

const grantTokens = async (parameters: Record<string, string> = {}) => obtainTokens(postern, client, parameters, zoe)

/** A token request of a resource server. */
const ask = async (
  fields: Record<string, string | undefined>,
  { as = postern.resourceServer }: { as?: { id: string; secret: string } } = {},
) => post(postern, '/token', fields, { authorization: basic(as.id, as.secret) })

const exchange = async (
  subjectToken: string,
  fields: Record<string, string | undefined> = {},
  from: { as?: { id: string; secret: string } } = {},
) => exchangeToken(postern, subjectToken, fields, from.as)

const useHandle = async (handle: string, from: Parameters<typeof ask>[1] = {}) =>
  ask({ grant_type: 'refresh_token', refresh_token: handle }, from)

const refreshes = () => refreshesOf(upstream)

t.test(
  'a resource server gets an upstream token that works, and learns how long it holds (RFC 8693 §2.2.1)',
  async (t) => {
    const { access_token } = await grantTokens()
    const { status, headers, body } = await exchange(access_token, { audience: 'company' })
    t.equal(status, 200)
    t.equal(headers.get('cache-control'), 'no-store')
    const { access_token: theirs, expires_in, ...rest } = body
    t.same(rest, {
      issued_token_type: ACCESS_TOKEN,
      token_type: 'Bearer',
      scope: 'openid email profile offline_access',
    })
    t.equal(await userinfo(upstream, theirs), 'zoe')
    t.ok((expires_in as number) > 3000 && (expires_in as number) <= 3600)
    t.equal(refreshes(), 0, 'the one from the sign-in is good for a while')
    const named: Record<string, string>[] = [
      {},
      { resource: upstream.issuer },
      { resource: `${upstream.issuer}/`, audience: 'company' },
    ]
    for (const target of named) t.equal((await exchange(access_token, target)).body.access_token, theirs)
  },
)

t.test('one that has nearly expired is refreshed, and what the provider rotates is kept', async (t) => {
  const { access_token } = await grantTokens()
  for (const round of [1, 2, 3]) {
    const before = refreshes()
    await expireUpstream(postern)
    const { body } = await exchange(access_token)
    t.equal(await userinfo(upstream, body.access_token), 'zoe', `round ${round}`)
    t.equal(refreshes(), before + 1)
  }
})

t.test('a handle goes on when the access token has expired, and ends with the grant', async (t) => {
  const tokens = await grantTokens()
  const { body } = await exchange(tokens.access_token, { scope: 'offline_access' })
  const handle = body.refresh_token as string
  t.match(handle, /^postern_uh_/)
  await letTimePass(postern.db, 2 * 3600)
  t.match(await exchange(tokens.access_token), { status: 400, body: { error: 'invalid_request' } })
  const used = await useHandle(handle)
  t.equal(await userinfo(upstream, used.body.access_token), 'zoe')
  t.notOk('refresh_token' in used.body, 'it stays the same')
  const asSubject = await exchange(handle, { subject_token_type: REFRESH_TOKEN, audience: 'company' })
  t.equal(asSubject.body.access_token, used.body.access_token)

  for (const from of [{ as: other }, {}]) {
    const shown = from.as === undefined ? issueCredential('upstreamHandle') : handle
    t.match(await useHandle(shown, from), {
      status: 400,
      body: { error: 'invalid_grant', error_description: 'refresh token is not valid' },
    })
    t.match(await exchange(shown, { subject_token_type: REFRESH_TOKEN }, from), {
      status: 400,
      body: { error: 'invalid_request', error_description: 'subject_token is not valid' },
    })
  }
  t.equal((await useHandle(handle)).status, 200, 'which harmed nothing')

  const family = await postern.db.selectFrom('upstream_handle').select('family_id').executeTakeFirstOrThrow()
  await revokeTokenFamily(postern.db, family.family_id, 'test')
  t.match(await useHandle(handle), { status: 400, body: { error: 'invalid_grant' } })
})

t.test('ten handles of a grant are kept, and the oldest go', async (t) => {
  const { access_token } = await grantTokens()
  await postern.db.deleteFrom('upstream_handle').execute()
  const handles: string[] = []
  for (let n = 0; n < 11; n += 1) {
    handles.push((await exchange(access_token, { scope: 'offline_access' })).body.refresh_token as string)
  }
  t.equal(await countRows(postern, 'upstream_handle'), 10)
  t.equal((await useHandle(handles[0] as string)).status, 400)
  t.equal((await useHandle(handles[1] as string)).status, 200)
})

t.test('exchange stops at once when the grant, its person or its client has ended', async (t) => {
  const refused = { status: 400, body: { error: 'invalid_request' } }
  const grant = async () => {
    const { access_token } = await grantTokens()
    const { body } = await exchange(access_token, { scope: 'offline_access' })
    return { accessToken: access_token, handle: body.refresh_token as string }
  }
  const revoked = await grant()
  const family = await postern.db
    .selectFrom('token_family')
    .select('id')
    .orderBy('created_at', 'desc')
    .executeTakeFirstOrThrow()
  await revokeTokenFamily(postern.db, family.id, 'test')
  t.match(await exchange(revoked.accessToken), refused)
  t.equal((await useHandle(revoked.handle)).status, 400)

  const living = await grant()
  for (const table of ['user', 'client'] as const) {
    await postern.db.updateTable(table).set({ disabled_at: new Date() }).execute()
    t.match(await exchange(living.accessToken), refused, table)
    t.equal((await useHandle(living.handle)).status, 400, table)
    await postern.db.updateTable(table).set({ disabled_at: null }).execute()
    t.equal((await useHandle(living.handle)).status, 200)
  }
  await postern.db.updateTable('identity_provider').set({ disabled_at: new Date() }).execute()
  t.match(await exchange(living.accessToken), { status: 400, body: { error: 'invalid_target' } })
  t.match(await useHandle(living.handle), { status: 400, body: { error: 'invalid_target' } })
  await postern.db.updateTable('identity_provider').set({ disabled_at: null }).execute()
})

t.test('a resource server that is not allowed gets nothing, whatever it names', async (t) => {
  const { access_token } = await obtainTokens(postern, client, { resource: OTHER }, zoe)
  const before = refreshes()
  await expireUpstream(postern)
  for (const target of [{}, { audience: 'company' }, { resource: upstream.issuer }, { audience: 'unknown' }]) {
    t.match(await exchange(access_token, target, { as: other }), {
      status: 400,
      body: { error: 'invalid_target', error_description: 'this resource server may not act there' },
    })
  }
  const { access_token: shown } = await grantTokens()
  t.match(await exchange(shown, {}, { as: other }), { status: 400, body: { error: 'invalid_request' } })
  t.match(await exchange(shown, { audience: 'unknown' }), { status: 400, body: { error: 'invalid_target' } })
  t.match(await exchange(shown, { resource: OTHER }), { status: 400, body: { error: 'invalid_target' } })
  t.equal(refreshes(), before, 'nobody was asked')
})

t.test('only what the person agreed to after it was allowed counts, and withdrawing it ends handles', async (t) => {
  const { access_token } = await grantTokens()
  const { body } = await exchange(access_token, { scope: 'offline_access' })
  const handle = body.refresh_token as string
  await disallowResourceUpstream(postern.db, own)
  t.match(await exchange(access_token), { status: 400, body: { error: 'invalid_target' } })
  t.equal((await useHandle(handle)).status, 400)

  await allowResourceUpstream(postern.db, own, false)
  t.match(await exchange(access_token), {
    status: 400,
    body: { error: 'invalid_target', error_description: 'the person has not agreed to this' },
  })
  t.equal((await useHandle(handle)).status, 400, 'it does not come back')
  const agreed = await grantTokens()
  const online = await exchange(agreed.access_token, { scope: 'offline_access' })
  t.equal(online.status, 200)
  t.notOk('refresh_token' in online.body, 'no handle where it may not act while the person is away')

  await allowResourceUpstream(postern.db, own, true)
  t.match(await exchange(agreed.access_token), { status: 400, body: { error: 'invalid_target' } }, 'that is more')
  const more = await grantTokens()
  const issued = await exchange(more.access_token, { scope: 'offline_access' })
  t.match(issued.body, { refresh_token: /^postern_uh_/ })
  await allowResourceUpstream(postern.db, own, false)
  t.equal((await exchange(more.access_token)).status, 200, 'less needs nobody’s consent')
  t.match(await useHandle(issued.body.refresh_token as string), { status: 400, body: { error: 'invalid_target' } })
  await allowResourceUpstream(postern.db, own, true)
})

t.test('a remembered consent from before it was allowed doesn’t count: the person is asked', async (t) => {
  const known = await addClient(postern, { redirectUris: [CALLBACK], tokenEndpointAuthMethod: 'client_secret_post' })
  await obtainTokens(postern, known, {}, zoe)
  const unasked = async () =>
    (await zoe.authorize(authorizeUrl(postern, known, pkce().challenge, { prompt: 'none' }))).searchParams
  t.ok((await unasked()).has('code'))
  await disallowResourceUpstream(postern.db, own)
  t.ok((await unasked()).has('code'))
  await allowResourceUpstream(postern.db, own, true)
  t.equal((await unasked()).get('error'), 'consent_required')
  await obtainTokens(postern, known, {}, zoe)
  t.ok((await unasked()).has('code'))
})

t.test(
  'what was agreed to is for one account: unlinking it ends handles, and the next one needs consent',
  async (t) => {
    const known = await addClient(postern, { redirectUris: [CALLBACK], tokenEndpointAuthMethod: 'client_secret_post' })
    const alice = new Person()
    const { access_token } = await obtainTokens(postern, known, {}, alice)
    t.match(await exchange(access_token), { status: 400, body: { error: 'invalid_target' } })
    const { id } = await postern.db
      .selectFrom('user')
      .select('id')
      .where('username', '=', 'alice')
      .executeTakeFirstOrThrow()
    const link = async (subject: string) => {
      upstream.accounts.set(subject, {})
      await linkUpstreamAccount(postern.db, id, { providerId: 'company', subject, displayName: subject })
      await signInUpstream(postern, { account: subject })
    }
    const isAsked = async () =>
      (await alice.authorize(authorizeUrl(postern, known, pkce().challenge, { prompt: 'none' }))).searchParams.get(
        'error',
      ) === 'consent_required'
    await link('private')
    const { body } = await exchange(access_token, { scope: 'offline_access' })
    t.equal(await userinfo(upstream, body.access_token), 'private', 'it may be linked after the consent')
    t.notOk(await isAsked())

    t.ok(await unlinkUpstreamAccount(postern.db, { userId: id, providerId: 'company' }, true))
    await link('of work')
    t.match(await useHandle(body.refresh_token as string), { status: 400, body: { error: 'invalid_grant' } })
    t.match(await exchange(access_token), {
      status: 400,
      body: { error: 'invalid_target', error_description: 'the person has not agreed to this' },
    })
    const grants = await listGrants(postern.db, { userId: id })
    t.same(
      grants.map(({ upstream }) => upstream),
      [[]],
      'nor does the account page say so',
    )
    t.ok(await isAsked())
    const again = await obtainTokens(postern, known, {}, alice)
    t.equal(await userinfo(upstream, (await exchange(again.access_token)).body.access_token), 'of work')

    const shown = async () => (await listGrants(postern.db, { userId: id })).flatMap((grant) => grant.upstream)
    t.same(await shown(), ['Company'])
    await postern.db.updateTable('identity_provider').set({ keeps_tokens: false }).execute()
    t.same(await shown(), [], 'where no tokens are kept, nobody acts')
    await postern.db.updateTable('identity_provider').set({ keeps_tokens: true }).execute()
  },
)

t.test('a token that is no person’s, malformed or expired is no subject (RFC 8693 §2.2.2)', async (t) => {
  const machine = await addMachine(postern)
  const tokens = await grantTokens()
  const refused = { status: 400, body: { error: 'invalid_request', error_description: 'subject_token is not valid' } }
  for (const token of [await obtainMachineToken(postern, machine), 'nonsense', tokens.refresh_token]) {
    t.match(await exchange(token), refused)
  }
  for (const fields of [
    { subject_token: '' },
    { subject_token_type: '' },
    { subject_token_type: 'urn:ietf:params:oauth:token-type:jwt' },
    { requested_token_type: 'urn:ietf:params:oauth:token-type:id_token' },
    { actor_token: tokens.access_token },
  ]) {
    t.match(await exchange(tokens.access_token, fields), { status: 400, body: { error: 'invalid_request' } })
  }
  t.equal((await exchange(tokens.access_token, { requested_token_type: ACCESS_TOKEN })).status, 200)
})

t.test('nobody but a resource server may exchange', async (t) => {
  const { access_token } = await grantTokens()
  const form = { grant_type: EXCHANGE, subject_token: access_token, subject_token_type: ACCESS_TOKEN }
  const { id } = postern.resourceServer
  for (const fields of [
    { client_id: client.client_id },
    { client_id: id, client_secret: 'wrong' },
    { client_id: id },
    {},
  ]) {
    t.match(await post(postern, '/token', { ...form, ...fields }), { status: 401, body: { error: 'invalid_client' } })
  }
  const { secret } = postern.resourceServer
  t.equal((await post(postern, '/token', { ...form, client_id: id, client_secret: secret })).status, 200)
  t.match(await ask({ grant_type: 'client_credentials' }), { status: 401, body: { error: 'invalid_client' } })
})

t.test('a JWT is exchanged where JWTs are issued', async (t) => {
  await issueJwts(postern)
  const { access_token } = await grantTokens()
  t.equal(decodeJwt(access_token).aud, RESOURCE)
  t.equal((await exchange(access_token)).status, 200)
  await postern.db.updateTable('resource').set({ token_format: 'opaque' }).execute()
  t.equal((await introspect(postern, access_token)).active, false)
  t.match(await exchange(access_token), { status: 400, body: { error: 'invalid_request' } })
})

t.test('it is in the metadata, and works, with an encryption key alone', async (t) => {
  const metadata = await (await fetch(`${postern.issuer}/.well-known/oauth-authorization-server`)).json()
  t.ok((metadata as { grant_types_supported: string[] }).grant_types_supported.includes(EXCHANGE))
  t.notOk(supportedGrantTypes({ encryptionKey: undefined }).includes(EXCHANGE))
  const without = await startTestPostern(t)
  const machine = await addMachine(without)
  const fields = { grant_type: EXCHANGE, client_id: machine.client_id, client_secret: machine.client_secret }
  t.match(await post(without, '/token', fields), { status: 400, body: { error: 'unsupported_grant_type' } })
})
