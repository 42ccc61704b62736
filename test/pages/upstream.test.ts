import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import {
  type IdentityProviderChanges,
  removeIdentityProvider,
  setIdentityProviderDisabled,
  updateIdentityProvider,
} from '../../src/store/identity-provider.ts'
import { insertUser, setUserDisabled } from '../../src/store/user.ts'
import { hashSecret, randomId } from '../../src/tokens/secret.ts'
import { issueSetupLink } from '../../src/users/create.ts'
import { letTimePass } from '../support/database.ts'
import { authorizeUrl, obtainTokens, pkce, post, redeem } from '../support/flow.ts'
import { watchLog } from '../support/log.ts'
import { Person, textOf } from '../support/person.ts'
import { addClient, addUser, countRows, PASSWORD, RESOURCE, startTestPostern } from '../support/postern.ts'
import { startReplica } from '../support/replica.ts'
import { until } from '../support/until.ts'
import {
  type AccountClaims,
  addUpstream,
  connectUpstream,
  departTo,
  locationOf,
  passProvider,
  signInUpstream,
} from '../support/upstream-provider.ts'
import { waiting } from '../support/waiting.ts'

const CALLBACK = 'https://app.example/callback'

const postern = await startTestPostern(t, { encryptionKey: 'of the tests, at least 32 characters' })
const upstream = await connectUpstream(t, postern, {})
const client = await addClient(postern, { redirectUris: [CALLBACK] })

/** Gives somebody an account at the provider. @returns its subject */
function addAccount(subject: string, claims: AccountClaims = {}): string {
  upstream.accounts.set(subject, { preferred_username: subject, ...claims })
  return subject
}

/** Changes the provider's settings for one test. */
async function withSettings(t: Test, changes: IdentityProviderChanges): Promise<void> {
  await updateIdentityProvider(postern.db, 'company', changes)
  t.teardown(() =>
    updateIdentityProvider(postern.db, 'company', {
      trusts_email: false,
      creates_users: true,
      allowed_domains: null,
      required_claims: [],
      internal_origin: null,
      authorization_parameters: {},
    }),
  )
}

/** Who is signed in, in somebody's browser. */
async function nameOf(person: Person): Promise<string | undefined> {
  const answer = await person.request(`${postern.issuer}/account`)
  return /Signed in as (\S+)/.exec(textOf(await answer.text()))?.[1]
}

async function usernames(): Promise<string[]> {
  const users = await postern.db.selectFrom('user').select('username').execute()
  return users.map(({ username }) => username)
}

async function read(answer: Response) {
  const html = await answer.text()
  return { status: answer.status, text: textOf(html), html }
}

/** The sign-in page of an authorization request, and what it answers with in the end. */
function request(parameters: Record<string, string | undefined> = {}) {
  const { challenge, verifier } = pkce()
  return { url: authorizeUrl(postern, client, challenge, parameters), verifier }
}

async function signInPageOf(person: Person, url: string): Promise<string> {
  return new URL(locationOf(await person.request(url)), postern.issuer).href
}

t.test('the first sign-in creates the user, the next one finds it, and tokens are for it', async (t) => {
  const account = addAccount('zoe')
  const person = new Person()
  const { url } = request()
  const answer = await signInUpstream(postern, { account, person, page: await signInPageOf(person, url) })
  t.equal(answer.status, 303)
  t.match(locationOf(answer), '/authorize?', 'back to the very request that began it')
  t.equal(new URL(locationOf(answer), postern.issuer).search, new URL(url).search)
  t.equal(await nameOf(person), 'zoe')
  const tokens = await obtainTokens(postern, client, {}, person)
  t.ok(tokens.access_token)
  const again = new Person()
  await signInUpstream(postern, { account, person: again })
  t.equal(await nameOf(again), 'zoe')
  t.equal((await usernames()).filter((name) => name.startsWith('zoe')).length, 1)
})

t.test('what the provider is asked for has PKCE, a nonce and a state of its own each time', async (t) => {
  const account = addAccount('yan')
  const before = upstream.authorizationRequests.length
  for (const person of [new Person(), new Person()]) await signInUpstream(postern, { account, person })
  const [first, second] = upstream.authorizationRequests.slice(before)
  t.match(Object.fromEntries(first ?? []), {
    response_type: 'code',
    client_id: 'postern',
    redirect_uri: `${postern.issuer}/login/company/callback`,
    scope: 'openid email profile',
    code_challenge_method: 'S256',
  })
  for (const name of ['state', 'nonce', 'code_challenge']) {
    t.match(first?.get(name), /^[A-Za-z0-9_-]{43}$/, name)
    t.not(first?.get(name), second?.get(name), name)
  }
})

t.test('a trusted provider links by a verified e-mail address, and by nothing else', async (t) => {
  await addUser(postern, 'carol@example.com')
  const verified = addAccount('c1', { email: 'Carol@Example.com', email_verified: true })
  const unverified = addAccount('c2', { email: 'carol@example.com', email_verified: false })
  const claimed = addAccount('c3', { preferred_username: 'carol@example.com' })

  const stranger = new Person()
  await signInUpstream(postern, { account: verified, person: stranger })
  t.equal(await nameOf(stranger), 'c1', 'the provider is not trusted for addresses')
  await postern.db.deleteFrom('upstream_account').where('subject', '=', verified).execute()

  await withSettings(t, { trusts_email: true })
  for (const [account, name] of [
    [unverified, 'c2'],
    [claimed, 'carol@example.com/company'],
    [verified, 'carol@example.com'],
  ] as const) {
    const person = new Person()
    await signInUpstream(postern, { account, person })
    t.equal(await nameOf(person), name, account)
  }
  const second = addAccount('c4', { email: 'carol@example.com', email_verified: true })
  const { status, text } = await read(await signInUpstream(postern, { account: second }))
  t.equal(status, 403)
  t.match(text, 'The user with this e-mail address signs in with another account here.')
})

t.test('nobody takes the name that another one’s address would be, in whatever letters', async (t) => {
  const squatter = addAccount('s1', { preferred_username: 'victim＠example.com' })
  await signInUpstream(postern, { account: squatter })
  const victim = addAccount('s2', { email: 'victim@example.com', email_verified: true })
  await withSettings(t, { trusts_email: true })
  const person = new Person()
  await signInUpstream(postern, { account: victim, person })
  t.equal(await nameOf(person), 'victim@example.com')
  t.same(await linksOf('victim@example.com'), ['s2'])
})

t.test('an account is not linked to a user who is disabled', async (t) => {
  await addUser(postern, 'gone@example.com')
  await setUserDisabled(postern.db, 'gone@example.com', true)
  const account = addAccount('gone', { email: 'gone@example.com', email_verified: true })
  await withSettings(t, { trusts_email: true })
  const { status, text } = await read(await signInUpstream(postern, { account }))
  t.equal(status, 403)
  t.match(text, 'This account has been disabled here.')
  t.same(await linksOf('gone@example.com'), [])
})

t.test('the word of one teller does not verify the address of the other', async (t) => {
  await addUser(postern, 'ceo@example.com')
  const account = addAccount('worker', { email: 'worker@example.com', email_verified: true })
  upstream.wrongClaims = { email: 'ceo@example.com' } // in the ID token, which says nothing of whether it is verified
  t.teardown(() => {
    upstream.wrongClaims = {}
  })
  await withSettings(t, { trusts_email: true })
  const person = new Person()
  await signInUpstream(postern, { account, person })
  t.equal(await nameOf(person), 'worker@example.com')
})

t.test('one person who comes by two trusted providers at once is one user', async (t) => {
  const claims = { email: 'twice@example.com', email_verified: true }
  await connectUpstream(t, postern, { t2: claims }, { id: 'second', trusts_email: true })
  t.teardown(() => removeIdentityProvider(postern.db, 'second'))
  await withSettings(t, { trusts_email: true })
  const people = [
    { person: new Person(), id: 'company', account: addAccount('t1', claims) },
    { person: new Person(), id: 'second', account: 't2' },
  ]
  const callbacks = await Promise.all(
    people.map(async ({ person, id, account }) =>
      passProvider(person, await departTo(person, `${postern.issuer}/login`, id), { account }),
    ),
  )
  // nobody writes before both have come as far as they can
  const held = await postern.db.startTransaction().execute()
  await sql`lock table "user" in share mode`.execute(held)
  const answering = Promise.all(people.map(({ person }, n) => person.request(callbacks[n] ?? '')))
  await until(async () => (await waiting(postern.db)) === 2)
  await held.commit().execute()
  t.same(
    (await answering).map(({ status }) => status),
    [303, 303],
  )
  for (const { person } of people) t.equal(await nameOf(person), 'twice@example.com')
  t.same((await linksOf('twice@example.com')).sort(), ['t1', 't2'])
})

t.test('somebody who has taken every name of another keeps nobody out', async (t) => {
  for (const name of ['zora', 'zora/company', 'z-1/company']) {
    await insertUser(postern.db, {
      id: randomId(),
      username: name,
      usernameKey: name,
      passwordHash: null,
      isAdministrator: false,
    })
  }
  const person = new Person()
  await signInUpstream(postern, { account: addAccount('z-1', { preferred_username: 'zora' }), person })
  t.match(await nameOf(person), /^[0-9a-f]{16}\/company$/)
})

t.test('what can not be stored is refused, or left out', async (t) => {
  const before = await countRows(postern, 'user')
  for (const account of [addAccount('x'.repeat(256)), addAccount('a\u0001b')]) {
    const { status, text } = await read(await signInUpstream(postern, { account }))
    t.equal(status, 503)
    t.match(text, 'Signing in with Company does not work right now.')
  }
  t.equal(await countRows(postern, 'user'), before)
  const person = new Person()
  await signInUpstream(postern, { account: addAccount('nul', { preferred_username: 'n\0l' }), person })
  t.equal(await nameOf(person), 'nul/company')
  t.match((await read(await person.request(`${postern.issuer}/account`))).text, /Company nl , since/)
})

t.test('an address that names no provider is not there, whatever it holds', async (t) => {
  for (const id of ['%00', 'a%00b', 'nobody', 'Company']) {
    t.equal((await fetch(`${postern.issuer}/login/${id}/callback?state=x`)).status, 404, id)
    t.equal((await fetch(`${postern.issuer}/login/${id}`, { method: 'POST' })).status, 404, id)
  }
})

t.test('where to go on to is kept up to 8 KB', async (t) => {
  const depart = async (length: number) => {
    const person = new Person()
    const address = `${postern.issuer}/login?continue=authorize&client_id=${client.client_id}&state=${'s'.repeat(7000)}&x=${'x'.repeat(length)}`
    const { html } = await read(await person.request(address))
    return read(await person.submit({ address, html }, '/login/company', {}))
  }
  t.equal((await depart(500)).status, 303)
  const before = await countRows(postern, 'upstream_sign_in')
  const { status, text } = await depart(1200)
  t.equal(status, 400)
  t.match(text, 'This request is too long')
  t.equal(await countRows(postern, 'upstream_sign_in'), before)
})

t.test('who comes by a provider is a user, so that no set-up link is good any more', async (t) => {
  await issueSetupLink(postern.context)
  await signInUpstream(postern, { account: addAccount('first') })
  t.equal(await countRows(postern, 'setup_link'), 0)
})

/** The accounts that a user is linked to, by subject. */
async function linksOf(usernameKey: string): Promise<string[]> {
  const links = await postern.db
    .selectFrom('upstream_account')
    .innerJoin('user', 'user.id', 'upstream_account.user_id')
    .select('subject')
    .where('username_key', '=', usernameKey)
    .execute()
  return links.map(({ subject }) => subject)
}

t.test('a person who is signed in links an account, and signs in with it from then on', async (t) => {
  await withSettings(t, { creates_users: false })
  await addUser(postern, 'bert')
  const account = addAccount('somebody-there')
  t.equal((await signInUpstream(postern, { account })).status, 403)
  const bert = new Person()
  await bert.signIn(postern.issuer, { username: 'bert' })
  const linked = await bert.request(await passProvider(bert, await departToLink(bert), { account }))
  t.match(locationOf(linked), /\/account\?done=linked$/)
  const elsewhere = new Person()
  await signInUpstream(postern, { account, person: elsewhere })
  t.equal(await nameOf(elsewhere), 'bert')
})

t.test('an account that can’t be linked is not, the person is told, and the log says why', async (t) => {
  await addUser(postern, 'dirk')
  const account = addAccount('of-another')
  await signInUpstream(postern, { account })
  const dirk = new Person()
  await dirk.signIn(postern.issuer, { username: 'dirk' })
  const log = watchLog(postern)
  const link = async (decision: 'allow' | 'deny', done: string, outcome: string) => {
    const answer = await dirk.request(await passProvider(dirk, await departToLink(dirk), { account, decision }))
    t.match(locationOf(answer), new RegExp(`/account\\?done=${done}$`))
    t.match(
      log.lines().findLast(({ event }) => event === 'account_not_linked'),
      { outcome, provider: 'company' },
    )
  }
  await link('allow', 'linked-elsewhere', 'account_linked_elsewhere')
  await link('deny', 'not-linked', 'denied')
  await withSettings(t, { allowed_domains: ['example.com'] })
  await link('allow', 'not-linked', 'domain_not_allowed')

  const callback = await passProvider(dirk, await departToLink(dirk), { account })
  await postern.db.deleteFrom('session').execute()
  await withSettings(t, { allowed_domains: null })
  t.match(locationOf(await dirk.request(callback)), /done=not-linked$/)
  t.match(
    log.lines().findLast(({ event }) => event === 'account_not_linked'),
    { outcome: 'signed_out_meanwhile' },
  )
  t.same(await linksOf('dirk'), [])
})

/** Presses the button that links an account, on the account page. @returns where the browser is sent */
async function departToLink(person: Person): Promise<string> {
  const address = `${postern.issuer}/account`
  const { html } = await read(await person.request(address))
  return locationOf(await person.submit({ address, html }, '/account/providers/link', { provider: 'company' }))
}

t.test('to link an account takes a sign-in of the last ten minutes', async (t) => {
  await addUser(postern, 'cora')
  const cora = new Person()
  await cora.signIn(postern.issuer, { username: 'cora' })
  const address = `${postern.issuer}/account`
  const link = async () => {
    const { html } = await read(await cora.request(address))
    return cora.submit({ address, html }, '/account/providers/link', { provider: 'company' })
  }
  await letTimePass(postern.db, 590)
  t.equal((await link()).status, 303)
  await letTimePass(postern.db, 20)
  const asked = await read(await link())
  t.equal(asked.status, 403)
  t.match(asked.text, 'Please sign in once more before you link one.')
  const again = await cora.submit({ address, html: asked.html }, '/login', { username: 'cora', password: PASSWORD })
  t.match(locationOf(again), /\/account$/)
  t.equal((await link()).status, 303)
})

t.test('policy refuses people of other domains, without a group, and those whom nobody knows', async (t) => {
  const before = await countRows(postern, 'user')
  const outsider = addAccount('o1', { email: 'o1@elsewhere.example', email_verified: true, groups: ['sales'] })
  const unverified = addAccount('o2', { email: 'o2@example.com', email_verified: false, groups: ['staff'] })
  const cases = [
    [{ allowed_domains: ['example.com'] }, outsider, 'its e-mail address does not belong to the organisation'],
    [{ allowed_domains: ['example.com'] }, unverified, 'its e-mail address does not belong to the organisation'],
    [
      { required_claims: [{ claim: 'groups', values: ['staff'] }] },
      outsider,
      'An administrator of this service can say',
    ],
    [{ creates_users: false }, outsider, 'Nobody here is known by this account.'],
  ] as const
  for (const [settings, account, words] of cases) {
    await t.test(JSON.stringify(settings), async (t) => {
      await withSettings(t, structuredClone(settings) as IdentityProviderChanges)
      const person = new Person()
      const { status, text } = await read(await signInUpstream(postern, { account, person }))
      t.equal(status, 403)
      t.match(text, words)
      t.equal(await nameOf(person), undefined)
    })
  }
  t.equal(await countRows(postern, 'user'), before)
  await withSettings(t, {
    allowed_domains: ['example.com', 'elsewhere.example'],
    required_claims: [{ claim: 'groups', values: ['staff', 'sales'] }],
  })
  const person = new Person()
  await signInUpstream(postern, { account: outsider, person })
  t.equal(await nameOf(person), 'o1')
  upstream.accounts.set(outsider, { email: 'o1@elsewhere.example', email_verified: true, groups: [] })
  t.equal((await signInUpstream(postern, { account: outsider })).status, 403, 'at each sign-in, not at the first alone')
})

t.test('a provider that is down shows a page that says so; passwords go on; it comes back', async (t) => {
  const account = addAccount('dora')
  await signInUpstream(postern, { account })
  const person = new Person()
  const page = `${postern.issuer}/login?continue=account`
  const { html } = await read(await person.request(page))
  const returning = new Person()
  const callback = await passProvider(returning, await departTo(returning, page), { account })

  await withSettings(t, { authorization_parameters: { hd: 'example.com' } }) // what was discovered just now counts
  await upstream.stop()
  t.teardown(() => upstream.start())
  const down = await read(await person.submit({ address: page, html }, '/login/company', {}))
  t.equal(down.status, 503)
  t.match(down.text, 'Company does not answer right now.')
  const half = await read(await returning.request(callback))
  t.equal(half.status, 503, 'also when it went away half-way')
  t.match(half.text, 'Company does not answer right now.')
  const answer = await person.submit({ address: page, html: down.html }, '/login', {
    username: 'alice',
    password: PASSWORD,
  })
  t.equal(answer.status, 303)
  t.equal(await nameOf(person), 'alice')

  await upstream.start()
  const back = new Person()
  t.equal((await signInUpstream(postern, { account, person: back })).status, 303)
  t.equal(await nameOf(back), 'dora')
})

t.test('strangers who depart one after the other make one question to the provider, and leave nothing', async (t) => {
  await withSettings(t, { authorization_parameters: {} })
  const timers = watchTimers(t)
  const questions = () => upstream.arrivals.filter((url) => url.endsWith('/.well-known/openid-configuration')).length
  const depart = () => departTo(new Person(), `${postern.issuer}/login`)
  for (const hd of ['a.example', 'b.example', 'c.example']) {
    await updateIdentityProvider(postern.db, 'company', { authorization_parameters: { hd } })
    const before = questions()
    for (let n = 0; n < 3; n += 1) t.match(await depart(), `hd=${hd}`)
    t.equal(questions(), before + 1)
  }
  t.equal(timers.pending(600_000), 1, 'what was discovered before is let go')
})

/** Counts timers that were set and not cleared. */
function watchTimers(t: Test) {
  const { setTimeout: set, clearTimeout: clear } = globalThis
  const pending = new Map<unknown, number>()
  t.teardown(() => Object.assign(globalThis, { setTimeout: set, clearTimeout: clear }))
  Object.assign(globalThis, {
    setTimeout: (act: () => void, milliseconds: number) => {
      const timer = set(act, milliseconds)
      pending.set(timer, milliseconds)
      return timer
    },
    clearTimeout: (timer: NodeJS.Timeout) => {
      pending.delete(timer)
      clear(timer)
    },
  })
  return { pending: (milliseconds: number) => [...pending.values()].filter((one) => one === milliseconds).length }
}

t.test('a provider that does not say where people sign in is unusable, and nothing is kept for it', async (t) => {
  const page = `${postern.issuer}/login`
  const person = new Person()
  const { html } = await read(await person.request(page))
  upstream.wrongAnswers = { '/.well-known/openid-configuration': { authorization_endpoint: undefined } }
  t.teardown(() => {
    upstream.wrongAnswers = {}
  })
  await withSettings(t, { authorization_parameters: { hd: 'anew.example' } })
  const before = await countRows(postern, 'upstream_sign_in')
  const { status, text } = await read(await person.submit({ address: page, html }, '/login/company', {}))
  t.equal(status, 503)
  t.match(text, 'Signing in with Company does not work right now.')
  t.equal(await countRows(postern, 'upstream_sign_in'), before)
})

t.test('an address captured in one browser is of no use in another, and spoils nothing', async (t) => {
  const account = addAccount('emil')
  const [victim, thief] = [new Person(), new Person()]
  const page = `${postern.issuer}/login`
  const callback = await passProvider(victim, await departTo(victim, page), { account })
  await thief.request(page)
  for (const person of [thief, new Person()]) {
    const { status, text } = await read(await person.request(callback))
    t.equal(status, 403)
    t.match(text, 'This sign-in can’t go on here')
    t.equal(await nameOf(person), undefined)
  }
  const attackers = await departTo(thief, page)
  const own = await passProvider(thief, attackers, { account: addAccount('thief') })
  t.equal((await read(await victim.request(own))).status, 403, 'nobody is signed in to the account of somebody else')
  t.equal((await victim.request(callback)).status, 303)
  t.equal(await nameOf(victim), 'emil')
})

t.test(
  'a sign-in ends once: a replay, one that took too long, and another provider’s address are refused',
  async (t) => {
    const account = addAccount('fred')
    const person = new Person()
    const callback = await passProvider(person, await departTo(person, `${postern.issuer}/login`), { account })
    t.equal((await person.request(callback)).status, 303)
    t.equal((await person.request(callback)).status, 403)
    t.equal(await nameOf(person), 'fred', 'who is signed in stays so')

    await addUpstream(postern, upstream, { id: 'other' })
    t.teardown(() => removeIdentityProvider(postern.db, 'other'))
    const mixed = new Person()
    const address = await passProvider(mixed, await departTo(mixed, `${postern.issuer}/login`), { account })
    t.equal((await mixed.request(address.replace('/login/company/', '/login/other/'))).status, 403)

    const slow = new Person()
    const late = await passProvider(slow, await departTo(slow, `${postern.issuer}/login`), { account })
    await letTimePass(postern.db, 901)
    t.equal((await slow.request(late)).status, 403)
  },
)

t.test('what the provider states wrongly is not believed', async (t) => {
  const account = addAccount('gina')
  t.teardown(() => {
    Object.assign(upstream, { wrongClaims: {}, signsWithForeignKey: false })
  })
  const now = Math.floor(Date.now() / 1000)
  for (const wrong of [
    { nonce: 'of another sign-in' },
    { nonce: undefined },
    { iss: 'https://evil.example' },
    { aud: 'another client' },
    { aud: ['postern', 'another'], azp: 'another' },
    { exp: now - 3600 },
    { sub: 'somebody else' },
  ]) {
    upstream.wrongClaims = wrong
    const person = new Person()
    const { status, text } = await read(await signInUpstream(postern, { account, person }))
    t.equal(status, 503, JSON.stringify(wrong))
    t.match(text, 'Signing in with Company does not work right now.')
    t.equal(await nameOf(person), undefined)
  }
  upstream.wrongClaims = {}
  upstream.signsWithForeignKey = true
  t.equal((await signInUpstream(postern, { account })).status, 503, 'nor what another key has signed')
  upstream.signsWithForeignKey = false
  const person = new Person()
  const page = await departTo(person, `${postern.issuer}/login`)
  const callback = new URL(await passProvider(person, page, { account }))
  t.equal(callback.searchParams.get('iss'), upstream.issuer)
  callback.searchParams.set('iss', 'https://evil.example')
  t.equal((await person.request(callback.href)).status, 503, 'nor another issuer in the answer (RFC 9207)')
  t.notOk((await usernames()).some((name) => name.startsWith('gina')))
})

t.test('a denial at the provider goes back to the client, with state and iss', async (t) => {
  const account = addAccount('hans')
  const person = new Person()
  const page = await signInPageOf(person, request({ state: 'the state' }).url)
  const callback = await passProvider(person, await departTo(person, page), { account, decision: 'deny' })
  const answer = new URL(locationOf(await person.request(callback)))
  t.equal(answer.origin + answer.pathname, CALLBACK)
  t.match(Object.fromEntries(answer.searchParams), { error: 'access_denied', state: 'the state', iss: postern.issuer })

  const alone = new Person()
  const home = await departTo(alone, `${postern.issuer}/login`)
  const { status, text } = await read(
    await alone.request(await passProvider(alone, home, { account, decision: 'deny' })),
  )
  t.equal(status, 403)
  t.match(text, 'You did not sign in with Company.', 'without a client, the person is told')
})

t.test('a disabled user is not signed in, and a disabled provider is not there', async (t) => {
  const account = addAccount('ida')
  const person = new Person()
  await signInUpstream(postern, { account, person })
  await setUserDisabled(postern.db, 'ida', true)
  t.equal(await nameOf(person), undefined)
  const { status, text } = await read(await signInUpstream(postern, { account }))
  t.equal(status, 403)
  t.match(text, 'This account has been disabled here.')
  await setUserDisabled(postern.db, 'ida', false)

  const away = new Person()
  const page = `${postern.issuer}/login`
  const { html } = await read(await away.request(page))
  const callback = await passProvider(away, await departTo(away, page), { account })
  await setIdentityProviderDisabled(postern.db, 'company', true)
  t.teardown(() => setIdentityProviderDisabled(postern.db, 'company', false))
  t.equal((await away.submit({ address: page, html }, '/login/company', {})).status, 404)
  t.equal((await away.request(callback)).status, 404, 'nor for those who were under way')
  t.notMatch((await read(await new Person().request(page))).text, 'Company')
})

t.test('with passwords switched off there is no form for them, and what is posted is refused', async (t) => {
  const replica = await startReplica(t, postern, { passwordSignIn: false })
  const page = `${replica.issuer}/login`
  const person = new Person()
  const before = await read(await new Person().request(`${postern.issuer}/login`))
  t.match(before.html, 'name="password"')
  const { html } = await read(await person.request(page))
  t.notMatch(html, 'name="password"')
  t.match(html, 'Continue with')
  const formToken = /name="form_token" value="([^"]+)"/.exec(html)?.[1] ?? ''
  const body = new URLSearchParams({ form_token: formToken, username: 'alice', password: PASSWORD })
  const { status, text } = await read(await person.request(page, { method: 'POST', body }))
  t.equal(status, 403)
  t.match(text, 'Passwords are not used here')
  t.equal(await nameOf(person), undefined)
})

t.test('with passwords switched off none is changed, and a session that began with one is none', async (t) => {
  const replica = await startReplica(t, postern, { passwordSignIn: false })
  await addUser(postern, 'otto@example.com')
  const account = addAccount('otto', { email: 'otto@example.com', email_verified: true })
  await withSettings(t, { trusts_email: true })
  const [withProvider, withPassword] = [new Person(), new Person()]
  await signInUpstream(postern, { account, person: withProvider })
  await withPassword.signIn(postern.issuer, { username: 'otto@example.com' })
  t.equal((await withPassword.request(`${postern.issuer}/account`)).status, 200)
  t.match(locationOf(await withPassword.request(`${replica.issuer}/account`)), /\/login\?continue=account$/)

  const shown = await read(await withProvider.request(`${replica.issuer}/account`))
  t.equal(shown.status, 200)
  const formToken = /name="form_token" value="([^"]+)"/.exec(shown.html)?.[1] ?? ''
  const body = new URLSearchParams({
    form_token: formToken,
    current_password: PASSWORD,
    new_password: 'another horse, another battery',
  })
  const answer = await read(await withProvider.request(`${replica.issuer}/account/password`, { method: 'POST', body }))
  t.equal(answer.status, 403)
  t.match(answer.text, 'Passwords are not used here')
})

t.test('the provider is told when the client wants the person to sign in anew', async (t) => {
  const account = addAccount('jane')
  const person = new Person()
  const promptOf = async (prompt: string) => {
    const page = await signInPageOf(person, request({ prompt }).url)
    t.equal((await signInUpstream(postern, { account, person, page })).status, 303)
    return upstream.authorizationRequests.at(-1)?.get('prompt')
  }
  t.equal(await promptOf('login'), 'login')
  t.equal(await promptOf('login consent'), 'login', 'consent is asked here')
  t.equal(await promptOf('select_account'), 'login', 'the provider would refuse a word that it does not know')
  await withSettings(t, { authorization_parameters: { prompt: 'consent', hd: 'example.com' } })
  t.equal(await promptOf('login'), 'consent login', 'beside what the operator wants')
  t.equal(upstream.authorizationRequests.at(-1)?.get('hd'), 'example.com')
  const { url } = request({ prompt: 'login' })
  const answer = await signInUpstream(postern, { account, person, page: await signInPageOf(person, url) })
  t.notMatch(locationOf(answer), 'prompt=', 'and is not asked again')
})

t.test('a pushed request survives the way to the provider (RFC 9126)', async (t) => {
  const account = addAccount('kim')
  const person = new Person()
  const { challenge, verifier } = pkce()
  const pushed = await post(postern, '/par', {
    client_id: client.client_id,
    response_type: 'code',
    redirect_uri: CALLBACK,
    code_challenge: challenge,
    code_challenge_method: 'S256',
    state: 'pushed state',
    prompt: 'login',
    resource: RESOURCE,
  })
  const query = new URLSearchParams({ client_id: client.client_id, request_uri: String(pushed.body.request_uri) })
  const page = await signInPageOf(person, `${postern.issuer}/authorize?${query}`)
  const back = await signInUpstream(postern, { account, person, page })
  t.equal(upstream.authorizationRequests.at(-1)?.get('prompt'), 'login', 'with what it demands of the sign-in')
  const answer = await person.authorize(new URL(locationOf(back), postern.issuer).href)
  t.equal(answer.searchParams.get('state'), 'pushed state')
  const code = answer.searchParams.get('code') ?? ''
  t.equal((await redeem(postern, client, { code, verifier })).status, 200)
})

t.test('the server asks at the internal address, and the browser at the public one', async (t) => {
  const account = addAccount('lars')
  await withSettings(t, { internal_origin: upstream.internalOrigin })
  const before = upstream.arrivals.length
  t.equal((await signInUpstream(postern, { account })).status, 303)
  const arrivals = upstream.arrivals.slice(before)
  const at = (origin: string) =>
    new Set(arrivals.filter((url) => url.startsWith(origin)).map((url) => new URL(url).pathname.split('/')[1]))
  t.same(at(upstream.internalOrigin), new Set(['.well-known', 'token', 'jwks', 'me']))
  t.same(at(upstream.issuer), new Set(['auth', 'interaction']))
})

t.test('twenty first sign-ins of one person at once make one user, over two servers', async (t) => {
  const account = addAccount('mia')
  const replica = await startReplica(t, postern)
  const callbacks = await Promise.all(
    Array.from({ length: 20 }, async () => {
      const person = new Person()
      return { person, url: await passProvider(person, await departTo(person, `${postern.issuer}/login`), { account }) }
    }),
  )
  const answers = await Promise.all(
    callbacks.map(({ person, url }, n) =>
      person.request(n % 2 === 0 ? url : url.replace(postern.issuer, replica.issuer)),
    ),
  )
  t.same([...new Set(answers.map(({ status }) => status))], [303])
  t.equal((await usernames()).filter((name) => name.startsWith('mia')).length, 1)
})

t.test('GitHub, which has neither discovery nor ID tokens (a double: the real one can’t be run)', async (t) => {
  const github = await startGitHubDouble(t)
  await addUpstream(postern, upstream, {
    id: 'github',
    name: 'GitHub',
    kind: 'github',
    issuer: github.origin,
    scope: ['read:user', 'user:email'],
    trusts_email: true,
  })
  t.teardown(() => removeIdentityProvider(postern.db, 'github'))
  await addUser(postern, 'nora@example.com')
  const person = new Person()
  const depart = async () => new URL(await departTo(person, `${postern.issuer}/login`, 'github'))
  const address = await depart()
  t.equal(address.origin + address.pathname, `${github.origin}/login/oauth/authorize`)
  t.equal(address.searchParams.get('scope'), 'read:user user:email')
  const back = (state: string | null) =>
    `${postern.issuer}/login/github/callback?${new URLSearchParams({ code: 'the code', state: state ?? '' })}`
  t.equal((await person.request(back(address.searchParams.get('state')))).status, 303)
  t.equal(await nameOf(person), 'nora@example.com', 'by the primary address, which is verified')
  t.equal(github.asked[0]?.get('code'), 'the code')
  const verifier = github.asked[0]?.get('code_verifier') ?? ''
  t.equal(hashSecret(verifier).toString('base64url'), address.searchParams.get('code_challenge'))
  github.answers = { status: 502 }
  const { text } = await read(await person.request(back((await depart()).searchParams.get('state'))))
  t.match(text, 'GitHub does not answer right now.')
})

/** What GitHub documents of its OAuth apps and its API, as far as a sign-in uses it. It is no GitHub. */
async function startGitHubDouble(t: Test) {
  const double = { origin: '', asked: [] as URLSearchParams[], answers: { status: 200 } }
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const answer = (body: unknown) =>
      response.writeHead(double.answers.status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
    if (request.url === '/login/oauth/access_token') {
      double.asked.push(new URLSearchParams(Buffer.concat(chunks).toString()))
      answer({ access_token: 'gho_double', scope: 'read:user,user:email', token_type: 'bearer' })
    } else if (request.headers.authorization !== 'Bearer gho_double') {
      response.writeHead(401).end()
    } else if (request.url === '/api/v3/user') {
      answer({ id: 583231, login: 'nora', name: 'Nora' })
    } else {
      answer([
        { email: 'alice@example.com', primary: false, verified: true },
        { email: 'nora@example.com', primary: true, verified: true },
      ])
    }
  }).listen(0, 'localhost')
  await once(server, 'listening')
  t.teardown(() => server.close())
  double.origin = `http://localhost:${(server.address() as AddressInfo).port}`
  return double
}
