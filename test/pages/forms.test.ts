import { createHash, createHmac } from 'node:crypto'
import type { InjectOptions, LightMyRequestResponse } from 'fastify'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { linkUpstreamAccount } from '../../src/store/upstream-account.ts'
import { findUser } from '../../src/store/user.ts'
import { issueSetupLink } from '../../src/users/create.ts'
import { authorizeUrl, type FlowClient, obtainTokens, pkce, post } from '../support/flow.ts'
import { addClient, countRows, PASSWORD, startTestPostern, type TestPostern } from '../support/postern.ts'
import { watchRoutes } from '../support/routes.ts'
import { connectUpstream } from '../support/upstream-provider.ts'

/** POST, but not forms of ours: machines have no cookies, and an authorization request comes from anywhere. */
const NOT_FORMS = ['/token', '/revoke', '/register', '/introspect', '/authorize', '/par', '/device_authorization']

const ENCRYPTION_KEY = 'of the tests, at least 32 characters'
const DEVICE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code'

/** A browser that shows its cookies and its forms to the test. */
class Browser {
  readonly postern: TestPostern
  cookies: Record<string, string> = {}

  constructor(postern: TestPostern) {
    this.postern = postern
  }

  async send(options: InjectOptions & { url: string }): Promise<LightMyRequestResponse> {
    const response = await this.postern.server.inject({ ...options, cookies: { ...this.cookies } })
    for (const { name, value } of response.cookies) {
      if (value === '') delete this.cookies[name]
      else this.cookies[name] = value
    }
    return response
  }

  /** Posts fields. */
  async post(url: string, fields: Record<string, string>): Promise<LightMyRequestResponse> {
    const headers = { 'content-type': 'application/x-www-form-urlencoded' }
    return this.send({ method: 'POST', url, headers, payload: new URLSearchParams(fields).toString() })
  }

  /** The hidden fields of the form of a page that posts to a path, and its whole address. */
  async form(page: Page, path: string): Promise<{ action: string; fields: Record<string, string> }> {
    const { body } = typeof page === 'string' ? await this.send({ url: page }) : await page(this)
    for (const [, action = '', content = ''] of body.matchAll(/<form[^>]* action="([^"]*)"[^>]*>([\s\S]*?)<\/form>/g)) {
      if (action.replace(/\?.*/, '') !== this.postern.context.config.basePath + path) continue
      const hidden = [...content.matchAll(/type="hidden" name="([^"]+)" value="([^"]*)"/g)]
      return {
        action: action.replaceAll('&amp;', '&'),
        fields: Object.fromEntries(hidden.map(([, name, value]) => [name, value])),
      }
    }
    throw new Error(`${typeof page === 'string' ? page : 'the page'} has no form for ${path}`)
  }

  async signIn(): Promise<void> {
    const { action, fields } = await this.form(`${this.postern.context.config.basePath}/login`, '/login')
    const { statusCode } = await this.post(action, { ...fields, username: 'alice', password: PASSWORD })
    if (statusCode !== 303) throw new Error(`signed in with ${statusCode}`)
  }
}

/** The address of a page, or how to come to it. */
type Page = string | ((browser: Browser) => Promise<LightMyRequestResponse>)

interface Form {
  /** where it posts to, if that isn't its route */
  path?: string
  /** what the person fills in, beside what `prepare` gives */
  fields: Record<string, string>
  /** of the answer when all is right */
  status: number
  /** has the page only for one who is signed in */
  signedIn: boolean
  /** starts a server, and gives the page with the form */
  prepare(t: Test): Promise<{ postern: TestPostern; page: Page; typed?: Record<string, string> }>
}

const signInForm: Form = {
  fields: { username: 'alice', password: PASSWORD },
  status: 303,
  signedIn: false,
  prepare: async (t) => ({ postern: await startTestPostern(t), page: '/login' }),
}

const FORMS: Record<string, Form> = {
  '/login': signInForm,
  '/logout': {
    fields: {},
    status: 200,
    signedIn: true,
    prepare: async (t) => ({ postern: await startTestPostern(t), page: '/account' }),
  },
  '/consent': {
    fields: { decision: 'approve' },
    status: 303,
    signedIn: true,
    prepare: async (t) => {
      const postern = await startTestPostern(t)
      return { postern, page: consentPage(postern, await addTestClient(postern)) }
    },
  },
  '/device': {
    fields: {},
    status: 200,
    signedIn: true,
    prepare: async (t) => {
      const postern = await startTestPostern(t)
      return { postern, page: '/device', typed: { user_code: await startDevice(postern) } }
    },
  },
  '/device/decision': {
    fields: { decision: 'approve' },
    status: 200,
    signedIn: true,
    prepare: async (t) => ({ postern: await startTestPostern(t), page: openDevice }),
  },
  '/login/:provider': {
    path: '/login/company',
    fields: {},
    status: 303,
    signedIn: false,
    prepare: async (t) => {
      const postern = await startTestPostern(t, { encryptionKey: ENCRYPTION_KEY })
      await connectUpstream(t, postern, {})
      return { postern, page: '/login' }
    },
  },
  '/account/grants/end': {
    fields: { grant: 'all', confirmed: 'yes' },
    status: 303,
    signedIn: true,
    prepare: async (t) => {
      const postern = await startTestPostern(t)
      const client = await addTestClient(postern)
      for (const _ of [1, 2]) await obtainTokens(postern, client)
      return { postern, page: '/account' }
    },
  },
  '/account/sessions/end': {
    fields: { session: 'others' },
    status: 303,
    signedIn: true,
    prepare: async (t) => ({ postern: await startTestPostern(t), page: '/account' }),
  },
  '/account/password': {
    fields: { current_password: PASSWORD, new_password: `${PASSWORD} again` },
    status: 303,
    signedIn: true,
    prepare: async (t) => ({ postern: await startTestPostern(t), page: '/account' }),
  },
  '/account/providers/link': {
    fields: { provider: 'company' },
    status: 303,
    signedIn: true,
    prepare: async (t) => {
      const postern = await startTestPostern(t, { encryptionKey: ENCRYPTION_KEY })
      await connectUpstream(t, postern, {})
      return { postern, page: '/account' }
    },
  },
  '/account/providers/unlink': {
    fields: { provider: 'company', confirmed: 'yes' },
    status: 303,
    signedIn: true,
    prepare: async (t) => {
      const postern = await startTestPostern(t, { encryptionKey: ENCRYPTION_KEY })
      await connectUpstream(t, postern, {})
      const alice = await findUser(postern.db, 'alice')
      const account = { providerId: 'company', subject: 'alice', displayName: 'alice' }
      await linkUpstreamAccount(postern.db, alice?.id ?? '', account)
      return { postern, page: '/account' }
    },
  },
  '/setup': {
    fields: { username: 'alice', password: PASSWORD },
    status: 200,
    signedIn: false,
    prepare: async (t) => {
      const postern = await startTestPostern(t, {}, { bare: true })
      return { postern, page: (await issueSetupLink(postern.context)).replace(postern.issuer, '') }
    },
  },
}

async function addTestClient(postern: TestPostern): Promise<FlowClient> {
  return addClient(postern, { redirectUris: ['https://app.example/callback'] })
}

function consentPage(postern: TestPostern, client: FlowClient): string {
  const url = new URL(authorizeUrl(postern, client, pkce().challenge))
  return `${postern.context.config.basePath}/consent${url.search}`
}

/** Starts a device. @returns the code that it shows */
async function startDevice(postern: TestPostern): Promise<string> {
  const { client_id } = await addClient(postern, { redirectUris: [], grantTypes: [DEVICE_GRANT] })
  const { status, body } = await post(postern, '/device_authorization', { client_id })
  if (status !== 200) throw new Error(JSON.stringify(body))
  return body.user_code as string
}

/** The question that a person comes to by the code of a device: each browser has a device of its own. */
async function openDevice(browser: Browser): Promise<LightMyRequestResponse> {
  const { action, fields } = await browser.form('/device', '/device')
  return browser.post(action, { ...fields, user_code: await startDevice(browser.postern) })
}

t.test('every form of the pages is tested here', async (t) => {
  const { routes } = await watchRoutes(() => startTestPostern(t))
  const posted = routes.filter(({ method }) => method === 'POST').map(({ url }) => url)
  t.same(posted.filter((url) => !NOT_FORMS.includes(url)).sort(), Object.keys(FORMS).sort())
})

for (const [route, { path = route, fields: always, status, signedIn, prepare }] of Object.entries(FORMS)) {
  t.test(`${route} takes only the form that it showed to this browser in this session`, async (t) => {
    const { postern, page, typed } = await prepare(t)
    const filled = { ...always, ...typed }
    const [browser, other] = [new Browser(postern), new Browser(postern)]
    const before = await browser.form(signedIn ? '/login' : page, signedIn ? '/login' : path)
    for (const one of signedIn ? [browser, other] : []) await one.signIn()
    const { action, fields: hidden } = await browser.form(page, path)
    const others = await other.form(page, path)
    const formCookie = Object.keys(browser.cookies).find((name) => name.includes('-form-')) ?? ''
    const { [formCookie]: _, ...withoutFormCookie } = browser.cookies
    const cookies = { ...browser.cookies }
    const state = await stateOf(postern)

    const { form_token: token = '', ...rest } = hidden
    t.match(token, /^[\w-]{43}$/)
    const forged: [string, Record<string, string>, Record<string, string>][] = [
      ['no token', rest, cookies],
      ['an empty token', { ...rest, form_token: '' }, cookies],
      ['a made-up token', { ...rest, form_token: token.split('').reverse().join('') }, cookies],
      ["another browser's token", { ...rest, form_token: others.fields.form_token ?? '' }, cookies],
      ["another browser's secret", hidden, { ...cookies, [formCookie]: other.cookies[formCookie] ?? '' }],
      ['no secret', hidden, withoutFormCookie],
      ['a secret that is none', hidden, { ...cookies, [formCookie]: '' }],
      ['a guessable secret', { ...rest, form_token: tokenOf('x', cookies) }, { ...cookies, [formCookie]: 'x' }],
    ]
    if (signedIn) forged.push(['a token from before signing in', { ...rest, ...before.fields }, cookies])
    else
      forged.push(['a session that began since', hidden, { ...cookies, ...sessionCookieOf(browser, 'postern_ss_x') }])
    for (const [what, fields, sent] of forged) {
      browser.cookies = { ...sent }
      const answer = await browser.post(action, { ...filled, ...fields })
      t.equal(answer.statusCode, 403, what)
      t.match(answer.body, /no longer valid/, what)
      t.same(await stateOf(postern), state, `${what}: nothing happened`)
      t.notOk(
        answer.cookies.some(({ name }) => name.includes('-session-')),
        `${what}: the session stays`,
      )
    }
    browser.cookies = { ...cookies }
    const twice = `${new URLSearchParams({ ...filled, ...hidden })}&form_token=${token}`
    const headers = { 'content-type': 'application/x-www-form-urlencoded' }
    t.equal(
      (await browser.send({ method: 'POST', url: action, headers, payload: twice })).statusCode,
      400,
      'two tokens',
    )
    t.same(await stateOf(postern), state)
    t.equal((await browser.post(action, { ...filled, ...hidden })).statusCode, status, 'the right one')
    t.strictNotSame(await stateOf(postern), state)
  })
}

t.test('a sign-in form that was open for too long is shown again, and then works', async (t) => {
  const { postern } = await signInForm.prepare(t)
  const browser = new Browser(postern)
  const answer = await browser.post('/login?continue=authorize&client_id=x', { username: 'alice', form_token: 'old' })
  t.equal(answer.statusCode, 403)
  t.match(answer.body, /Please try once more/)
  t.match(answer.body, 'value="alice"')
  t.match(answer.body, 'action="/login?continue=authorize&amp;client_id=x"')
  const token = /name="form_token" value="([^"]+)"/.exec(answer.body)?.[1] ?? ''
  const again = await browser.post('/login', { username: 'alice', password: PASSWORD, form_token: token })
  t.equal(again.statusCode, 303)
})

t.test('a question that was open for too long is asked again, and nothing of it is lost', async (t) => {
  const { postern } = await signInForm.prepare(t)
  const [browser, client] = [new Browser(postern), await addTestClient(postern)]
  await browser.signIn()
  const { action, fields } = await browser.form(consentPage(postern, client), '/consent')
  const old = { ...fields, form_token: 'old', decision: 'approve' }
  t.match((await browser.post(action, old)).body, /no longer valid, and nothing was decided/)
  const again = await browser.form((one) => one.post(action, old), '/consent')
  t.equal(again.action, action)
  const { statusCode, headers } = await browser.post(again.action, { ...again.fields, decision: 'approve' })
  t.equal(statusCode, 303)
  const answer = new URL(headers.location ?? '')
  t.ok(answer.searchParams.get('code'))
  t.equal(answer.searchParams.get('state'), 'opaque state')
})

t.test('the forms of a device that were open for too long are shown again, and then work', async (t) => {
  const { postern } = await signInForm.prepare(t)
  const browser = new Browser(postern)
  await browser.signIn()
  const user_code = await startDevice(postern)
  const typed = await browser.post('/device', { user_code, form_token: 'old' })
  t.match(typed.body, /no longer valid, and nothing was done/)
  t.match(typed.body, `value="${user_code}"`)
  const opening = await browser.form(async () => typed, '/device')
  const open = (one: Browser) => one.post(opening.action, { ...opening.fields, user_code })
  const question = await browser.form(open, '/device/decision')
  const old = { ...question.fields, form_token: 'old', decision: 'approve' }
  const again = await browser.form((one) => one.post(question.action, old), '/device/decision')
  t.same(again.fields.user_code, user_code)
  const done = await browser.post(again.action, { ...again.fields, decision: 'approve' })
  t.match(done.body, 'Device connected')
})

t.test('the forms of several open pages all work, since nothing is used up', async (t) => {
  const { postern } = await signInForm.prepare(t)
  const [browser, client] = [new Browser(postern), await addTestClient(postern)]
  await browser.signIn()
  const pages = [consentPage(postern, client), consentPage(postern, client)]
  const forms = []
  for (const page of pages) forms.push(await browser.form(page, '/consent'))
  for (const { action, fields } of forms.reverse()) {
    t.equal((await browser.post(action, { ...fields, decision: 'approve' })).statusCode, 303)
  }
})

t.test('every page has the headers that keep it to itself', async (t) => {
  const { made: postern, routes } = await watchRoutes(() => startTestPostern(t))
  const [browser, stranger] = [new Browser(postern), new Browser(postern)]
  const client = await addTestClient(postern)
  await browser.signIn()
  const answers = new Map<string, LightMyRequestResponse>()
  for (const { url } of routes.filter(({ method }) => method === 'GET')) {
    for (const one of [browser, stranger]) {
      answers.set(`${one === browser ? 'signed in' : 'stranger'} GET ${url}`, await one.send({ url, headers: HTML }))
    }
  }
  for (const url of ['/nowhere', '/login?continue=x', '/%zz', '/login?username=%00', '/token']) {
    answers.set(url, await stranger.send({ url, headers: HTML }))
  }
  const login = await stranger.form('/login', '/login')
  answers.set(
    'wrong password',
    await stranger.post(login.action, { ...login.fields, username: 'alice', password: 'x' }),
  )
  for (let n = 0; n < 10; n += 1) {
    answers.set('throttled', await stranger.post(login.action, { ...login.fields, username: 'alice', password: 'x' }))
  }
  t.equal(answers.get('throttled')?.statusCode, 429)
  const consent = await browser.send({ url: consentPage(postern, client), headers: HTML })
  answers.set('consent', consent)
  answers.set(
    'changed consent',
    await browser.post(consentPage(postern, client), await approval(browser, postern, client)),
  )
  answers.set('device consent', await openDevice(browser))
  const logout = await browser.form('/account', '/logout')
  answers.set('signed out', await browser.post(logout.action, logout.fields))

  const pages = [...answers].filter(([, { headers }]) => headers['content-type']?.toString().startsWith('text/html'))
  t.ok(pages.length >= 15, `${pages.length} pages`)
  for (const [name, { headers, body }] of pages) {
    t.equal(headers['content-type'], 'text/html; charset=utf-8', name)
    t.match(headers, EXPECTED_HEADERS, name)
    t.same(policyOf(headers['content-security-policy']), [
      "default-src 'none'",
      `style-src '${digestOfStyle(body)}'`,
      'img-src data:',
      "base-uri 'none'",
      "frame-ancestors 'none'",
    ])
    t.notOk('cross-origin-opener-policy' in headers, `${name}: a popup's opener may wait for it`)
    t.notOk('access-control-allow-origin' in headers, `${name}: nobody else may read it`)
    t.notMatch(body, /<script|\son\w+=|\sstyle=|javascript:|(src|href|action)="?(https?:)?\/\//i, name)
    t.equal(body.match(/<style>/g)?.length, 1, name)
  }
  for (const [name, { statusCode, headers }] of answers) {
    if (statusCode === 303) t.match(headers, { 'cache-control': 'no-store', 'referrer-policy': 'same-origin' }, name)
  }
})

t.test('cookies on https are for this host, and for no script', async (t) => {
  const issuer = 'https://auth.example.com/a'
  const postern = await startTestPostern(t, { issuer, sessionSeconds: 7200 })
  const cookies = await cookiesOf(postern)
  const tag = createHash('sha256').update(issuer).digest('hex').slice(0, 8)
  const common = { httpOnly: true, secure: true, sameSite: 'Lax', path: '/' }
  t.match(cookies.get(`__Host-postern-form-${tag}`), { ...common, value: /^[\w-]{43}$/ })
  t.match(cookies.get(`__Host-postern-session-${tag}`), { ...common, maxAge: 7200, value: /^postern_ss_/ })
  t.match(cookies.get(`__Host-postern-browser-${tag}`), { ...common, maxAge: 365 * 86_400, value: /^postern_kb_/ })
  t.equal(cookies.size, 3)
  for (const cookie of cookies.values()) t.notOk('domain' in cookie, 'the host alone')
  t.notOk('maxAge' in (cookies.get(`__Host-postern-form-${tag}`) ?? {}), 'until the browser is closed')
})

t.test('cookies on http say nothing of https, and each issuer of a host has its own', async (t) => {
  const [one, other] = [await startTestPostern(t), await startTestPostern(t)]
  const [ones, others] = [await cookiesOf(one), await cookiesOf(other)]
  t.same([...ones.keys()].map((name) => name.replace(/-\w+$/, '')).sort(), [
    'postern-browser',
    'postern-form',
    'postern-session',
  ])
  for (const cookie of ones.values()) {
    t.match(cookie, { httpOnly: true, sameSite: 'Lax', path: '/' })
    t.notOk('secure' in cookie || 'domain' in cookie)
  }
  t.same(
    [...ones.keys()].filter((name) => others.has(name)),
    [],
    'ports of a host share cookies',
  )
})

const HTML = { accept: 'text/html' }

const EXPECTED_HEADERS = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'same-origin',
}

function policyOf(header: unknown): string[] {
  return String(header).split('; ')
}

function digestOfStyle(body: string): string {
  const style = /<style>([\s\S]*?)<\/style>/.exec(body)?.[1] ?? ''
  return `sha256-${createHash('sha256').update(style).digest('base64')}`
}

/** The fields of an approval of something else than what was shown. */
async function approval(browser: Browser, postern: TestPostern, client: FlowClient): Promise<Record<string, string>> {
  const { fields } = await browser.form(consentPage(postern, client), '/consent')
  return { ...fields, decision: 'approve', shown: 'something else' }
}

/** The cookies of a browser after it has signed in, with their attributes. */
async function cookiesOf(postern: TestPostern) {
  const { basePath } = postern.context.config
  const browser = new Browser(postern)
  const page = await browser.send({ url: `${basePath}/login` })
  const { action, fields } = await browser.form(`${basePath}/login`, '/login')
  const answer = await browser.post(action, { ...fields, username: 'alice', password: PASSWORD })
  return new Map([...page.cookies, ...answer.cookies].map((cookie) => [cookie.name, cookie]))
}

/** The token that goes with a secret and the session of a browser, as the server makes it. */
function tokenOf(secret: string, cookies: Record<string, string>): string {
  const [, sessionId = ''] = Object.entries(cookies).find(([name]) => name.includes('-session-')) ?? []
  return createHmac('sha256', secret).update(sessionId).digest('base64url')
}

function sessionCookieOf({ cookies }: Browser, value: string): Record<string, string> {
  const form = Object.keys(cookies).find((name) => name.includes('-form-')) ?? ''
  return { [form.replace('-form-', '-session-')]: value }
}

/** How many rows there are of what forms make and end. */
async function stateOf(postern: TestPostern): Promise<Record<string, number>> {
  const tables = ['user', 'session', 'consent', 'authorization_code', 'known_browser', 'setup_link', 'throttle']
  const counts = await Promise.all(tables.map(async (table) => [table, await countRows(postern, table)] as const))
  const { rows } = await sql<Record<string, number>>`
    select count(opened_by)::integer as opened, (count(*) filter (where status <> 'pending'))::integer as decided,
      (select count(*)::integer from token_family where revoked_at is not null) as ended,
      (select count(*)::integer from upstream_sign_in) as departed,
      (select count(*)::integer from upstream_account) as linked,
      (select hashtext(string_agg(password_hash, ' ')) from "user") as passwords
    from device_code`.execute(postern.db)
  return { ...Object.fromEntries(counts), ...rows[0] }
}
