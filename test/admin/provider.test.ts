import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import t from 'tap'
import {
  providerAdd,
  providerCheck,
  providerList,
  providerRemove,
  providerSet,
  providerSetDisabled,
  providerShow,
} from '../../src/admin/provider.ts'
import { readConfig } from '../../src/config.ts'
import { findIdentityProvider } from '../../src/store/identity-provider.ts'
import { openClientSecret } from '../../src/users/identity-provider.ts'
import { freePort } from '../support/postern.ts'
import { startUpstreamProvider } from '../support/upstream-provider.ts'
import { jsonOf, refusalOf, startCommand, textOf } from './command.ts'

t.jobs = 4

const KEY = { POSTERN_ENCRYPTION_KEY: 'of the tests, at least 32 characters' }
const REDIRECT_URI = 'https://auth.example.com/login/company/callback'
const SECRET = 'the-secret-of-the-client'

/** An address at which nothing listens: a provider there can be added, unchecked. */
async function awayIssuer(): Promise<string> {
  return `http://localhost:${await freePort()}`
}

t.test('a provider is added with a secret that is read, sealed and never shown', { buffered: true }, async (t) => {
  const { run, succeed, fail, db, config } = await startCommand(t, KEY)
  const upstream = await startUpstreamProvider(t, { redirectUris: [REDIRECT_URI] })
  const words = ['--preset', 'generic', '--issuer', upstream.issuer, '--client-id', 'postern']
  const demands = ['--allow-domain', 'Example.com', '--allow-group', 'staff', '--allow-group', 'sales']
  t.match(
    await fail(['provider', 'add', 'company', ...words], 'a wrong secret\n'),
    /^Nothing was added: the provider does not accept the client ID postern with this secret; name the right one/,
  )
  const added = await succeed(
    ['provider', 'add', 'company', ...words, ...demands, '--create-users', '--keep-tokens', '--name', 'Example'],
    `${upstream.clientSecret}\n`,
  )
  t.match(added, REDIRECT_URI)
  t.match(added, 'Everybody who meets the demands may sign in; the first sign-in creates the user.')
  t.match(added, 'postern provider check company')
  const stored = await findIdentityProvider(db, 'company')
  t.equal(openClientSecret(config, 'company', stored?.client_secret as Buffer), upstream.clientSecret)
  t.match(stored, {
    name: 'Example',
    scope: ['openid', 'email', 'profile', 'offline_access'],
    authorization_parameters: { prompt: 'consent' },
    allowed_domains: ['example.com'],
    required_claims: [{ claim: 'groups', values: ['staff', 'sales'] }],
    keeps_tokens: true,
    creates_users: true,
    trusts_email: false,
  })
  t.match(await jsonOf(providerCheck(config, 'company')), { ok: true, problems: 0 })
  const shown = [added, await textOf(providerShow(config, 'company')), JSON.stringify(await providerList(config))]
  for (const output of shown) t.notMatch(output, upstream.clientSecret)
  const again = providerAdd(config, 'company', { preset: 'generic', issuer: upstream.issuer, clientId: 'x' })
  t.match(await refusalOf(again), /There is a provider company already/)
  await upstream.stop()
  const { code, output } = await run(['provider', 'check', 'company'])
  t.equal(code, 1)
  t.match(output, /PROBLEM {2}discovery: http:\S+ can't be reached: connection refused\n +→ /)
})

t.test('without an encryption key nothing is added, but a public client that keeps no tokens', async (t) => {
  const { config, fail } = await startCommand(t)
  const issuer = await awayIssuer()
  const options = { preset: 'generic', issuer, clientId: 'postern' } as const
  const problem = await fail([
    'provider',
    'add',
    'company',
    '--preset',
    'generic',
    '--issuer',
    issuer,
    '--client-id',
    'x',
  ])
  t.match(problem, /^POSTERN_ENCRYPTION_KEY is not set: .*openssl rand -base64 32/)
  t.match(
    await refusalOf(providerAdd(config, 'company', { ...options, public: true, keepTokens: true })),
    /^POSTERN_ENC/,
  )
  t.match(await jsonOf(providerAdd(config, 'company', { ...options, public: true })), { public: true, checked: false })
  t.match(await refusalOf(providerSet(config, 'company', { clientSecretFile: 'x' })), /^POSTERN_ENCRYPTION_KEY/)
})

t.test('a provider that is away is added with a warning, one that is wrong is not', async (t) => {
  const { config } = await startCommand(t)
  const answers: Record<string, unknown> = {
    '/other': { issuer: 'https://other.example.com' },
    '/slash': { issuer: 'ISSUER/slash/' },
    '/unsafe': {
      issuer: 'ISSUER/unsafe',
      authorization_endpoint: 'https://sso.example.com/auth',
      token_endpoint: 'http://127.0.0.1:PORT/token', // another origin, in plain http
      jwks_uri: 'https://sso.example.com/keys',
    },
    '/poor': { issuer: 'ISSUER/poor', authorization_endpoint: 'https://x.example' },
  }
  const arrivals: string[] = []
  const server = createServer((request, response) => {
    arrivals.push(request.url ?? '')
    const path = (request.url ?? '').replace('/.well-known/openid-configuration', '')
    if (path === '/html') response.writeHead(200, { 'content-type': 'text/html' }).end('<p>Welcome')
    else if (answers[path] === undefined) response.writeHead(404).end()
    else {
      const body = JSON.stringify(answers[path]).replace('ISSUER', origin).replace('PORT', String(port))
      response.writeHead(200, { 'content-type': 'application/json' }).end(body)
    }
  })
  const port = await freePort()
  const origin = `http://localhost:${port}`
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const add = (issuer: string) =>
    providerAdd(config, 'company', { preset: 'generic', issuer, clientId: 'x', public: true })
  for (const [path, words] of [
    ['/other', 'the provider calls itself "https://other.example.com", not '],
    ['/slash', 'they differ by the slash at the end'],
    ['/poor', 'the discovery document has no token_endpoint, no jwks_uri'],
    ['/unsafe', 'the provider names an address that is not https: http://127.0.0.1:'],
    ['/html', "doesn't answer with a JSON object (text/html)"],
    ['/nowhere', 'answers 404'],
  ] as const) {
    const refusal = await refusalOf(add(origin + path))
    t.match(refusal, /^Nothing was added: /, path)
    t.match(refusal, words)
  }
  t.notOk(arrivals.includes('/token'), 'the client’s credentials went nowhere')
  t.match(await textOf(add(await awayIssuer())), /Mind that it could not be checked: .* connection refused/)
})

t.test('presets know what the providers need', { buffered: true }, async (t) => {
  const { config } = await startCommand(t, KEY)
  const tenant = '0c5a4f6e-9d1f-4f0e-8f5c-3a1d0f4f2b7e'
  const refused = (options: Partial<Parameters<typeof providerAdd>[2]>) =>
    refusalOf(providerAdd(config, 'company', { preset: 'generic', clientId: 'x', public: true, ...options }))
  t.match(await refused({}), 'The preset generic needs --issuer')
  t.match(await refused({ preset: 'keycloak' }), '/realms/')
  t.match(await refused({ preset: 'entra' }), 'needs --tenant')
  t.match(await refused({ preset: 'entra', tenant: 'common' }), 'a UUID')
  t.match(await refused({ preset: 'google', tenant }), '--tenant is for the preset entra alone')
  t.match(await refused({ preset: 'entra', tenant, allowDomain: ['example.com'] }), 'would let nobody in')
  t.match(await refused({ preset: 'entra', tenant, trustEmail: true }), 'would link nobody')
  t.match(await refused({ preset: 'google', allowGroup: ['staff'] }), '--require-claim hd=example.com')
  t.match(await refused({ preset: 'github', allowGroup: ['staff'] }), 'nothing else can be demanded')
  for (const issuer of [
    'sso',
    'http://sso.example.com',
    'https://a:b@sso.example.com',
    'https://sso.example.com/?a=b',
  ]) {
    t.match(await refused({ issuer }), '--issuer must', issuer)
  }
  for (const preset of ['generic', 'entra'] as const) {
    for (const tenant of ['common', 'organizations', 'Consumers']) {
      const issuer = `https://login.microsoftonline.com/${tenant}/v2.0`
      t.match(await refused({ preset, issuer }), 'stands for every organisation at Microsoft', `${preset} ${tenant}`)
    }
  }
  t.match(await refused({ issuer: 'https://a.example/.well-known/openid-configuration' }), 'is the address without')
  // GitHub is asked nothing when it is added
  const github = { preset: 'github', clientId: 'x', public: true, keepTokens: true } as const
  t.match(await jsonOf(providerAdd(config, 'github', github)), {
    name: 'GitHub',
    kind: 'github',
    issuer: 'https://github.com',
    scopes: ['read:user', 'user:email'],
    parameters: {},
    redirect_uri: 'https://auth.example.com/login/github/callback',
  })
  const okta = { preset: 'okta', issuer: await awayIssuer(), clientId: 'x', public: true } as const
  await providerAdd(config, 'okta', { ...okta, allowGroup: ['staff'] })
  t.ok((await jsonOf(providerShow(config, 'okta'))).scopes.includes('groups'), 'groups are asked for')
})

t.test('what cannot be set is refused with the reason', async (t) => {
  const { config } = await startCommand(t)
  const options = { preset: 'generic', issuer: await awayIssuer(), clientId: 'x', public: true } as const
  const refused = (id: string, more: object = {}) => refusalOf(providerAdd(config, id, { ...options, ...more }))
  for (const id of ['', 'Company', 'a_b', '-a', 'a-', 'a/b', 'a'.repeat(33)]) {
    t.match(await refused(id), "can't be the id of a provider", id)
  }
  for (const internalUrl of ['keycloak:8080', 'http://keycloak:8080/realms/a', 'ftp://keycloak', 'http://a@keycloak']) {
    t.match(await refused('company', { internalUrl }), '--internal-url takes', internalUrl)
  }
  for (const domain of ['example', 'a b.com', '*.example.com', 'a@example.com']) {
    t.match(await refused('company', { allowDomain: [domain] }), "can't be the domain", domain)
  }
  t.match(await refused('company', { requireClaim: ['staff'] }), '--require-claim takes NAME=VALUE')
  t.match(await refused('company', { parameter: ['state=x'] }), 'Postern does that itself')
  t.match(await refused('company', { scope: ['email'] }), 'has to hold openid')
  t.match(await refused('company', { clientSecretFile: 'x' }), 'leave out --client-secret-file')
  t.match(await refused('company', { name: ' ' }), '--name is empty')
  t.same(await jsonOf(providerList(config)), [])
})

t.test('a provider is changed, and everything can be taken back', { buffered: true }, async (t) => {
  const { succeed, fail, config, db } = await startCommand(t, KEY)
  const options = { preset: 'generic', issuer: await awayIssuer(), clientId: 'x', public: true } as const
  await providerAdd(config, 'company', options)
  const file = join(t.testdir(), 'secret')
  writeFileSync(file, `${SECRET}\n`)
  const changed = await succeed([
    ...['provider', 'set', 'company', '--trust-email', '--create-users', '--keep-tokens', '--name', 'Renamed'],
    ...['--client-secret-file', file, '--allow-domain', 'a.example', '--allow-domain', 'b.example'],
    ...['--require-claim', 'level=1=2', '--allow-group', 'staff', '--internal-url', 'http://sso:8080'],
    ...['--parameter', 'hd=example.com', '--scope', 'openid email', '--username-claim', 'nickname', '--client-id', 'y'],
  ])
  t.match(changed, /client secret +sealed in the database/)
  t.notMatch(changed, SECRET)
  t.match(changed, /required claims +level=1=2\n +groups=staff/)
  t.match(changed, 'It counts from the next sign-in on')
  const stored = await findIdentityProvider(db, 'company')
  t.equal(openClientSecret(readConfig(KEY), 'company', stored?.client_secret as Buffer), SECRET)
  t.match(await jsonOf(providerShow(config, 'company')), {
    name: 'Renamed',
    internal_url: 'http://sso:8080',
    client_id: 'y',
    public: false,
    scopes: ['openid', 'email'],
    parameters: { hd: 'example.com' },
    username_claim: 'nickname',
    create_users: true,
    trust_email: true,
    keep_tokens: true,
    allowed_domains: ['a.example', 'b.example'],
  })
  t.match(await textOf(providerSet(config, 'company', { name: 'Once more' })), 'b.example', 'what is not named stays')
  const demands = async (options: Parameters<typeof providerSet>[2]) =>
    (await jsonOf(providerSet(config, 'company', options))).required_claims
  const [level, level3] = [
    { claim: 'level', values: ['1=2'] },
    { claim: 'level', values: ['3'] },
  ]
  const [staff, sales] = [
    { claim: 'groups', values: ['staff'] },
    { claim: 'groups', values: ['sales'] },
  ]
  t.same(await demands({ allowGroup: ['sales'] }), [level, sales], 'a group replaces groups alone')
  t.same(await demands({ requireClaim: ['level=3'] }), [sales, level3], 'and a claim the others')
  t.same(await demands({ requireClaim: [''] }), [sales])
  t.same(await demands({ requireClaim: ['groups=staff', 'level=3'] }), [staff, level3])
  await succeed([
    ...['provider', 'set', 'company', '--no-trust-email', '--no-create-users', '--no-keep-tokens', '--public'],
    ...['--allow-domain', '', '--require-claim', '', '--allow-group', '', '--internal-url', '', '--parameter', ''],
  ])
  t.match(await jsonOf(providerShow(config, 'company')), {
    internal_url: null,
    public: true,
    parameters: {},
    create_users: false,
    trust_email: false,
    keep_tokens: false,
    allowed_domains: null,
    required_claims: [],
  })
  t.match(await fail(['provider', 'set', 'company']), /Nothing to change was named/)
  t.match(await refusalOf(providerSet(config, 'nobody', { name: 'x' })), /There is no identity provider nobody/)
})

t.test('the internal address counts for an issuer that names its port, too', { buffered: true }, async (t) => {
  const { config } = await startCommand(t)
  const upstream = await startUpstreamProvider(t, { redirectUris: [REDIRECT_URI] })
  const issuer = 'https://sso.example.com:443'
  const endpoints = { token_endpoint: `${issuer}/token`, jwks_uri: `${issuer}/jwks`, userinfo_endpoint: `${issuer}/me` }
  upstream.wrongAnswers = { '/.well-known/openid-configuration': { issuer, ...endpoints } }
  const internalUrl = upstream.internalOrigin
  const options = { preset: 'generic', issuer, internalUrl, clientId: 'postern', public: true } as const
  t.match(await refusalOf(providerAdd(config, 'company', options)), 'does not accept the client ID postern')
  t.same(upstream.arrivals.slice(-2), [`${internalUrl}/.well-known/openid-configuration`, `${internalUrl}/token`])
})

t.test('a provider is disabled, enabled, listed and removed', { buffered: true }, async (t) => {
  const { config, succeed } = await startCommand(t)
  t.match(await textOf(providerList(config)), 'There is no identity provider yet')
  await providerAdd(config, 'company', { preset: 'generic', issuer: await awayIssuer(), clientId: 'x', public: true })
  t.match(
    await textOf(providerSetDisabled(config, 'company', true)),
    'Disabled Single sign-on: nobody signs in with it',
  )
  t.match(await jsonOf(providerList(config)), [{ id: 'company', disabled: true }])
  t.match(await textOf(providerSetDisabled(config, 'company', false)), 'Enabled')
  t.match(await textOf(providerList(config)), /^ID +NAME +ISSUER .*\ncompany /)
  t.match(await succeed(['provider', 'remove', 'company']), 'Removed Single sign-on with all links')
  for (const refusal of [providerRemove, providerShow, providerCheck]) {
    t.match(await refusalOf(refusal(config, 'company')), 'There is no identity provider company')
  }
})
