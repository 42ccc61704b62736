import t from 'tap'
import { clientSet, clientShow } from '../../src/admin/client.ts'
import { resourceList, resourceSet } from '../../src/admin/resource.ts'
import { addMachine, obtainMachineToken } from '../support/access-token.ts'
import { basic } from '../support/credentials.ts'
import { letTimePass } from '../support/database.ts'
import { type FlowClient, introspect, obtainTokens, post, refresh, type Tokens } from '../support/flow.ts'
import { addClient, addResource, startTestPostern } from '../support/postern.ts'
import { commandIn, jsonOf, refusalOf, textOf } from './command.ts'

const postern = await startTestPostern(t)
const { config } = postern.context

let added = 0

/** A resource server and a client of their own, so that no test has the policies of another. */
async function start() {
  added += 1
  const uri = `https://mcp${added}.example.com/mcp`
  const resourceServer = await addResource(postern, uri, [{ name: 'read', description: 'Read' }])
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  return {
    client,
    resourceServer,
    uri,
    setResource: (options: Parameters<typeof resourceSet>[2]) => resourceSet(config, uri, options),
    setClient: (options: Parameters<typeof clientSet>[2]) => clientSet(config, client.client_id, options),
    connect: () => obtainTokens(postern, client, { resource: uri }),
  }
}

/** Refreshes, which must succeed. */
async function rotate(client: FlowClient, { refresh_token }: Tokens): Promise<Tokens> {
  const { status, body } = await refresh(postern, client, refresh_token)
  if (status !== 200) throw new Error(`refreshed with ${status}: ${JSON.stringify(body)}`)
  return body as unknown as Tokens
}

async function isRefused(client: FlowClient, { refresh_token }: Tokens): Promise<boolean> {
  const { status, body } = await refresh(postern, client, refresh_token)
  return status === 400 && body.error === 'invalid_grant'
}

t.test(
  'access tokens live as long as the client has it, or else the resource server, or else the setting',
  async (t) => {
    const { client, connect, setClient, setResource } = await start()
    const lifetimes = async () => {
      const first = await connect()
      return [first.expires_in, (await rotate(client, first)).expires_in]
    }
    t.same(await lifetimes(), [3600, 3600])
    await setResource({ accessTokenSeconds: '600' })
    t.same(await lifetimes(), [600, 600])
    await setClient({ accessTokenSeconds: '900' })
    t.same(await lifetimes(), [900, 900], 'also when it is longer')
    await setClient({ accessTokenSeconds: '300' })
    t.same(await lifetimes(), [300, 300])
    await setClient({ accessTokenSeconds: 'default' })
    t.same(await lifetimes(), [600, 600], 'taken back from the client')
    await setResource({ accessTokenSeconds: 'default' })
    t.same(await lifetimes(), [3600, 3600], 'and from the resource server')
  },
)

t.test('an access token ends when its lifetime says so; one that was issued before keeps its own', async (t) => {
  const { connect, resourceServer, setResource } = await start()
  const before = await connect()
  await setResource({ accessTokenSeconds: '600' })
  const after = await connect()
  const active = async () => {
    const answers = await Promise.all(
      [before, after].map((one) => introspect(postern, one.access_token, resourceServer)),
    )
    return answers.map((answer) => answer.active)
  }
  await letTimePass(postern.db, 590)
  t.same(await active(), [true, true])
  await letTimePass(postern.db, 11)
  t.same(await active(), [true, false])
})

t.test('a token that a client gets for itself has the same lifetimes', async (t) => {
  const { setResource, uri } = await start()
  const machine = await addMachine(postern)
  const lifetime = async () => {
    const fields = { grant_type: 'client_credentials', resource: uri }
    const authorization = basic(machine.client_id, machine.client_secret ?? '')
    return (await post(postern, '/token', fields, { authorization })).body.expires_in
  }
  t.equal(await lifetime(), 3600)
  await setResource({ accessTokenSeconds: '600' })
  t.equal(await lifetime(), 600)
  await clientSet(config, machine.client_id, { accessTokenSeconds: '300' })
  t.equal(await lifetime(), 300)
})

t.test('a refresh token ends when it was not used for its time, counted from each use', async (t) => {
  const { client, connect, setClient, setResource } = await start()
  await setResource({ refreshTokenSeconds: '1000' })
  let tokens = await connect()
  for (let times = 0; times < 3; times += 1) {
    await letTimePass(postern.db, 990)
    tokens = await rotate(client, tokens)
  }
  await letTimePass(postern.db, 1001)
  t.equal(await isRefused(client, tokens), true)

  await setClient({ refreshTokenSeconds: '500' })
  const shorter = await connect()
  await letTimePass(postern.db, 501)
  t.equal(await isRefused(client, shorter), true, 'the client’s own comes first')

  await setClient({ refreshTokenSeconds: 'default' })
  const longer = await connect()
  await letTimePass(postern.db, 990)
  const rotated = await rotate(client, longer)
  await setResource({ refreshTokenSeconds: 'default' })
  const unbound = await rotate(client, rotated)
  await letTimePass(postern.db, 86_400)
  await rotate(client, unbound)
})

t.test('a grant ends after its time, however often it is refreshed', async (t) => {
  const { client, connect, setClient, setResource } = await start()
  const endsAfter = async (seconds: number) => {
    let tokens = await connect()
    await letTimePass(postern.db, seconds / 2)
    tokens = await rotate(client, tokens)
    await letTimePass(postern.db, seconds / 2 - 10)
    tokens = await rotate(client, tokens)
    t.ok(tokens.expires_in <= 10, 'no access token outlives it')
    await letTimePass(postern.db, 11)
    return isRefused(client, tokens)
  }
  await setResource({ familySeconds: '4000' })
  t.equal(await endsAfter(4000), true)
  await setClient({ familySeconds: '2000' })
  t.equal(await endsAfter(2000), true, 'the client’s own comes first')
  await setClient({ familySeconds: 'default' })
  t.equal(await endsAfter(4000), true)
  await setResource({ familySeconds: 'default' })
  const tokens = await connect()
  await letTimePass(postern.db, 5000)
  await rotate(client, tokens)
})

t.test(
  'a superseded refresh token converges in the window that the client has, or else the resource server',
  async (t) => {
    const { client, connect, setClient, setResource, resourceServer } = await start()
    /** What becomes of a refresh token that was superseded so many seconds ago. */
    const repeated = async (seconds: number) => {
      const first = await connect()
      const second = await rotate(client, first)
      await letTimePass(postern.db, seconds)
      const { status, body } = await refresh(postern, client, first.refresh_token)
      const { active } = await introspect(postern, second.access_token, resourceServer)
      if (status === 200) return body.refresh_token === second.refresh_token && active ? 'converged' : 'another pair'
      return active ? 'refused' : 'ended'
    }
    t.same([await repeated(100), await repeated(130)], ['converged', 'ended'], 'the setting')
    await setResource({ refreshGraceSeconds: '0' })
    t.equal(await repeated(0), 'ended')
    await setClient({ refreshGraceSeconds: '30' })
    t.same([await repeated(20), await repeated(40)], ['converged', 'ended'], 'the client’s own comes first')
    await setResource({ refreshGraceSeconds: '600' })
    await setClient({ refreshGraceSeconds: '0' })
    t.equal(await repeated(0), 'ended', 'also when it is none')
    await setClient({ refreshGraceSeconds: 'default' })
    t.same([await repeated(500), await repeated(610)], ['converged', 'ended'])
    await setResource({ refreshGraceSeconds: 'default' })
    t.same([await repeated(100), await repeated(130)], ['converged', 'ended'])
  },
)

t.test('a resource server gets JWTs from the next token on, and opaque ones again', async (t) => {
  const { client, connect, setResource, resourceServer, uri } = await start()
  const machine = await addMachine(postern)
  const opaque = await connect()
  t.match(opaque.access_token, /^postern_at_/)
  await setResource({ tokenFormat: 'jwt' })
  t.equal(await isActiveAt(opaque), true, 'what was issued counts on')
  const jwt = await rotate(client, opaque)
  t.match(jwt.access_token, /^eyJ[\w-]+\.[\w-]+\.[\w-]+$/)
  t.match(await obtainMachineToken(postern, machine, uri), /^eyJ/)
  t.equal(await isActiveAt(jwt), true)
  await setResource({ tokenFormat: 'opaque' })
  t.match((await rotate(client, jwt)).access_token, /^postern_at_/)

  async function isActiveAt({ access_token }: Tokens): Promise<boolean> {
    return (await introspect(postern, access_token, resourceServer)).active === true
  }
})

t.test('an operator narrows what a client may get, and takes that back', async (t) => {
  const { connect, setClient, setResource } = await start()
  await setResource({ scope: ['read=Read', 'write=Write'] })
  t.equal((await connect()).scope, 'read write')
  await setClient({ scope: ['read'] })
  t.equal((await connect()).scope, 'read')
  await setClient({ scope: [''] })
  t.equal((await connect()).scope, 'read write')
})

t.test('policies of one resource server or client are no others’', async (t) => {
  const [one, other] = [await start(), await start()]
  await one.setResource({ accessTokenSeconds: '600', refreshGraceSeconds: '0', tokenFormat: 'jwt' })
  await one.setClient({ accessTokenSeconds: '300' })
  const tokens = await other.connect()
  t.equal(tokens.expires_in, 3600)
  t.match(tokens.access_token, /^postern_at_/)
})

t.test('what is set is shown, and only that', async (t) => {
  const { client, setClient, setResource } = await start()
  const text = await textOf(setResource({ accessTokenSeconds: '600', refreshGraceSeconds: '0', name: 'Notes' }))
  t.match(text, /Tokens that were issued stay as they are/)
  t.match(text, /\n +name +Notes\n/)
  t.match(text, /\n +access token seconds +600\n/)
  t.match(text, /\n +refresh grace seconds +0$/)
  t.notMatch(text, /family seconds/)
  await setClient({ familySeconds: '4000', requirePar: true })
  const shown = () => textOf(clientShow(config, client.client_id))
  t.match(await shown(), /\n +pushed requests +required\n +family seconds +4000\n/)
  await setClient({ familySeconds: 'default', requirePar: false })
  t.notMatch(await shown(), /pushed requests|seconds/)
})

t.test('a bad value is refused with what would be good, and nothing of the command is done', async (t) => {
  const { connect, setClient, setResource } = await start()
  const number = 'must be a whole number of seconds, or "default".'
  for (const [options, problem] of [
    [{ accessTokenSeconds: '29' }, '--access-token-seconds must be at least 30 seconds, or "default".'],
    [{ accessTokenSeconds: '86401' }, '--access-token-seconds must be at most 86400 seconds, or "default".'],
    [{ accessTokenSeconds: '1h' }, `--access-token-seconds ${number}`],
    [{ refreshTokenSeconds: '-1' }, `--refresh-token-seconds ${number}`],
    [{ familySeconds: '' }, `--family-seconds ${number}`],
    [{ refreshGraceSeconds: '3601' }, '--refresh-grace-seconds must be at most 3600 seconds, or "default".'],
    [{ refreshGraceSeconds: 'Default' }, `--refresh-grace-seconds ${number}`],
    [{}, 'Nothing to change was named; see --help.'],
  ] as const) {
    for (const set of [setResource, setClient]) t.equal(await refusalOf(set(options)), problem)
  }
  await refusalOf(setResource({ accessTokenSeconds: '600', refreshGraceSeconds: 'x' }))
  t.equal((await connect()).expires_in, 3600)
  t.match(await refusalOf(resourceSet(config, 'https://x.example', { name: 'x' })), 'There is no resource server')
  t.match(await refusalOf(clientSet(config, 'x', { familySeconds: '60' })), 'There is no client x')
  t.match(await refusalOf(setClient({ scope: ['openid'] })), 'The scope openid belongs to OpenID Connect')
})

t.test('the command ends with 1 for a bad value, and with 2 for bad usage', async (t) => {
  const { client, connect, uri } = await start()
  const run = commandIn({ DATABASE_URL: postern.databaseUrl, ISSUER: postern.issuer })
  const set = ['resource', 'set', uri]
  const results = await Promise.all([
    run([...set, '--access-token-seconds', '5']),
    run(set),
    run([...set, '--token-format', 'paseto']),
    run([...set, '--access-token-minutes', '5']),
    run(['client', 'set', client.client_id, '--refresh-grace-seconds']),
    run(['client', 'set']),
  ])
  t.same(
    results.map(({ code }) => code),
    [1, 1, 2, 2, 2, 2],
  )
  for (const { output, errors } of results) {
    t.equal(output, '')
    t.match(errors, /\S/)
  }
  t.equal(results[0]?.errors, '--access-token-seconds must be at least 30 seconds, or "default".\n')
  t.match(results[2]?.errors, /opaque, jwt/)
  const { code } = await run([...set, '--access-token-seconds', '600', '--token-format', 'jwt', '--json'])
  t.equal(code, 0)
  t.match(await connect(), { expires_in: 600, access_token: /^eyJ/ })
})

t.test('programs are told the lifetimes and the token format that are set', async (t) => {
  const { client, setClient, setResource, uri } = await start()
  const none = { access_token_seconds: null, refresh_token_seconds: null, family_seconds: null }
  const set = { ...none, access_token_seconds: 600, refresh_grace_seconds: 0, token_format: 'jwt' }
  const options = { accessTokenSeconds: '600', refreshGraceSeconds: '0', tokenFormat: 'jwt' } as const
  t.match(await jsonOf(setResource(options)), set)
  const listed: { resource: string }[] = await jsonOf(resourceList(config))
  t.match(
    listed.find(({ resource }) => resource === uri),
    set,
  )
  t.match(await jsonOf(clientShow(config, client.client_id)), { ...none, refresh_grace_seconds: null })
  t.match(await jsonOf(setClient({ familySeconds: '86400' })), { ...none, family_seconds: 86_400 })
})
