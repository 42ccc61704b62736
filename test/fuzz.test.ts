import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import fc from 'fast-check'
import type { LightMyRequestResponse } from 'fastify'
import t from 'tap'
import { ERROR_STATUS } from '../src/protocol/oauth-error.ts'
import { insertIdentityProvider } from '../src/store/identity-provider.ts'
import { insertSession } from '../src/store/session.ts'
import { insertSetupLink } from '../src/store/setup-link.ts'
import { hashSecret } from '../src/tokens/secret.ts'
import { issueSetupLink } from '../src/users/create.ts'
import { basic } from './support/credentials.ts'
import { authorizeUrl, obtainTokens, pkce } from './support/flow.ts'
import { identityProvider } from './support/identity-provider.ts'
import { Person } from './support/person.ts'
import { addClient, freePort, PASSWORD, RESOURCE, startTestPostern } from './support/postern.ts'
import { watchRoutes } from './support/routes.ts'

/** FUZZ_SEED repeats a run; FUZZ_CASES, the number of cases for each route, makes it longer. */
const SEED = Number(process.env.FUZZ_SEED ?? Math.trunc(Math.random() * 2 ** 31))
const CASES = Number(process.env.FUZZ_CASES ?? 500)

/** Routes that answer with pages; every other one, also a new one, has to answer with OAuth JSON. */
const PAGES = [
  '',
  '/',
  '/authorize',
  '/login',
  '/logout',
  '/consent',
  '/account',
  '/setup',
  '/device',
  '/device/decision',
  '/account/grants/end',
  '/account/sessions/end',
  '/account/password',
  '/account/providers/link',
  '/account/providers/unlink',
]

/** Pages whose address names an identity provider. */
const PROVIDER_PAGE = /^\/login\/[^/]*(\/callback)?$/

const CALLBACKS = ['https://app.example/callback?own=1', 'http://127.0.0.1:8080/callback', 'cursor://app/callback']

/** An identity provider that has no discovery, so that nothing has to be there: no case comes as far as asking it. */
const PROVIDER = 'https://provider.example'

t.setTimeout(600_000)

interface Case {
  method: string
  path: string
  query: string
  body: string | Buffer | undefined
  headers: Record<string, string>
}

/** A parameter; the value is encoded, or isn't as it should be. */
type Pair = [name: string, value: string]

const port = await freePort()
const base = '/auth'
const issuer = `http://localhost:${port}${base}`
const { made: postern, routes } = await watchRoutes(() =>
  startTestPostern(t, { port, issuer, trustProxy: 1, codeSeconds: 600, encryptionKey: 'k'.repeat(32) }),
)
const client = await addClient(postern, { redirectUris: CALLBACKS })
const confidential = await addClient(postern, {
  redirectUris: CALLBACKS,
  tokenEndpointAuthMethod: 'client_secret_post',
})
await addProvider()
const browser = await openBrowser()

/** Values that are right, by the name of their parameter: with them a request gets behind the first checks. */
const RIGHT = new Map(Object.entries(await prepareValues()))

/** Requests that are nearly whole. */
const WHOLE: Record<string, { query: string[]; body: string[] }> = {
  '/authorize': { query: ['response_type', 'client_id', 'redirect_uri', 'code_challenge', 'state'], body: [] },
  '/consent': {
    query: ['response_type', 'client_id', 'redirect_uri', 'code_challenge'],
    body: ['form_token', 'decision', 'shown'],
  },
  '/login': { query: ['continue', 'client_id'], body: ['form_token', 'username', 'password'] },
  '/logout': { query: ['continue', 'client_id'], body: ['form_token'] },
  '/token': {
    query: [],
    body: ['grant_type', 'client_id', 'code', 'code_verifier', 'redirect_uri', 'refresh_token', 'scope'],
  },
  '/login/:provider': { query: ['continue', 'client_id', 'prompt'], body: ['form_token'] },
  '/login/:provider/callback': { query: ['state', 'code'], body: [] },
  '/account/grants/end': { query: [], body: ['form_token', 'grant', 'confirmed'] },
  '/account/sessions/end': { query: [], body: ['form_token', 'session'] },
  '/account/password': { query: [], body: ['form_token', 'current_password', 'new_password'] },
  '/account/providers/link': { query: [], body: ['form_token', 'provider'] },
  '/account/providers/unlink': { query: [], body: ['form_token', 'provider', 'confirmed'] },
  '/revoke': { query: [], body: ['client_id', 'token'] },
  '/introspect': { query: [], body: ['client_id', 'client_secret', 'token'] },
}

/** What no parameter should be, encoded as it travels. */
const JUNK = [
  '',
  '%00',
  'a%00b',
  '%',
  '%zz',
  '%ff%fe',
  '%C0%80',
  '%ED%A0%80', // a lone surrogate
  '%F4%90%80%80',
  '%u0000',
  '+',
  '%0d%0aset-cookie:%20a=b',
  '%E2%80%AE%EF%BB%BF',
  '%3Cscript%3Ealert(1)%3C/script%3E',
  '%3C%25=%201%20%25%3E',
  "'%20or%201=1--",
  'null',
  '-1',
  '1e999',
  '__proto__',
  'constructor',
  'https://evil.example/callback',
  '//evil.example',
  '%5C%5Cevil.example',
  'javascript:alert(1)',
  'https://app.example/callback?own=1%23',
  'https://app.example@evil.example/',
  '../../etc/passwd',
  'x'.repeat(9000),
  '%F0%9F%98%80'.repeat(700),
  Array(3000).fill('a').join('+'),
]

const text = fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' })).map(encode)
const junk = fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...JUNK) }, { weight: 1, arbitrary: text })
const name = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...RIGHT.keys()) },
  { weight: 1, arbitrary: junk },
  { weight: 1, arbitrary: fc.constantFrom('__proto__', 'constructor', 'a[b]', 'client_id[]', 'toString') },
)

process.stderr.write(`FUZZ_SEED=${SEED} FUZZ_CASES=${CASES}\n`) // a comment of tap's isn't shown

const urls = [...new Set(routes.map(({ url }) => url))].sort((one, other) => rank(one) - rank(other))
for (const url of urls) {
  const methods = [...new Set(routes.filter((route) => route.url === url).map(({ method }) => method))]
  t.test(`${methods.join(' ')} ${url} answers whatever is sent`, async (t) => {
    const statuses: Record<string, number> = {}
    const cases = url.endsWith('/login') ? CASES / 4 : CASES // a password takes its time
    await repeat(cases, caseOf(url, methods), async (one) => {
      const response = await postern.server.inject({
        method: one.method as 'GET',
        url: one.query === '' ? one.path : `${one.path}?${one.query}`,
        headers: one.headers,
        ...(one.body === undefined ? {} : { payload: one.body }),
      })
      judge(one, methods, response)
      statuses[response.statusCode] = (statuses[response.statusCode] ?? 0) + 1
      await repairBrowser(one)
    })
    t.comment(JSON.stringify(statuses))
  })
}

t.test('the form that creates the first user answers whatever is sent', async (t) => {
  const bare = await startTestPostern(t, {}, { bare: true })
  const link = new URL(await issueSetupLink(bare.context))
  const url = link.pathname + link.search
  const page = await bare.server.inject({ url })
  const cookie = page.cookies.map(({ name, value }) => `${name}=${value}`).join('; ')
  const formToken: Pair = ['form_token', encode(formTokenOf(page.body))]
  const typed = fc.array(fc.tuple(fc.constantFrom('username', 'password'), junk), { maxLength: 3 })
  await repeat(CASES / 10, typed, async (fields) => {
    const headers = { cookie, 'content-type': 'application/x-www-form-urlencoded' }
    const { statusCode } = await bare.server.inject({
      method: 'POST',
      url,
      headers,
      payload: join([formToken, ...fields]),
    })
    if (![200, 400].includes(statusCode)) throw new Error(`answered with ${statusCode}`)
    if (statusCode === 200) {
      await bare.db.deleteFrom('user').execute()
      await insertSetupLink(bare.db, hashSecret(link.searchParams.get('token') ?? ''), 3600)
    }
  })
})

t.test('what is hardly HTTP is answered or cut off, and the server lives on', async (t) => {
  const form = 'grant_type=refresh_token'
  const requests = [
    `GET ${base}/login HTTP/1.1\r\nhost: localhost\r\naccept: text/html\r\n\r\n`,
    `POST ${base}/token HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: ${form.length}\r\n\r\n${form}`,
    `POST ${base}/register HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n`,
  ]
  const mangled = fc
    .tuple(fc.constantFrom(...requests), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }))
    .map(([request, changes]) => {
      const bytes = Buffer.from(request, 'latin1')
      for (const [position, value] of changes) bytes[position % bytes.length] = value
      return bytes
    })
  const half = fc
    .tuple(fc.constantFrom(...requests), fc.nat())
    .map(([request, length]) => Buffer.from(request.slice(0, length % request.length), 'latin1'))
  const bytes = fc.uint8Array({ maxLength: 2000 }).map((one) => Buffer.from(one))
  const odd = fc.constantFrom(...oddRequests()).map((one) => Buffer.from(one, 'latin1'))
  await repeat(CASES / 4, fc.oneof(mangled, half, bytes, odd), async (sent) => {
    const answer = (await exchange(sent)).replace(/^HTTP\/1\.1 100 Continue\r\n\r\n/, '')
    if (answer === '') return // cut off
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1])
    if (!(status >= 200 && status < 500)) throw new Error(`answered with ${answer.slice(0, 500)}`)
    const [head = '', rest = ''] = answer.split('\r\n\r\n', 2)
    const body = rest.slice(0, Number(/content-length: (\d+)/i.exec(head)?.[1])) // another answer may follow it
    if (status >= 400 && head.includes('content-type: application/json')) judgeError(JSON.parse(body))
  })
  t.equal((await fetch(`${issuer}/health/live`)).status, 200)
})

t.test('requests that never end take nothing from others', async (t) => {
  const sockets = await Promise.all(
    Array.from({ length: 200 }, async (_, n) => {
      const socket = connect(port, '127.0.0.1')
      socket.on('error', () => {})
      await once(socket, 'connect')
      socket.write(
        n % 2 === 0
          ? 'GET / HTTP/1.1\r\nhost: x\r\n'
          : `POST ${base}/token HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\na`,
      )
      return socket
    }),
  )
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
  })
  for (let n = 0; n < 20; n += 1) t.equal((await fetch(`${issuer}/health/ready`)).status, 200)
  const limits = postern.server.server
  t.ok(limits.requestTimeout > 0 && limits.requestTimeout <= 60_000, 'and they are cut off in the end')
  t.ok(limits.headersTimeout > 0 && limits.headersTimeout <= 60_000)
})

/** Runs a property; its error says how to repeat it. */
async function repeat<T>(cases: number, arbitrary: fc.Arbitrary<T>, check: (one: T) => Promise<void>): Promise<void> {
  await fc.assert(fc.asyncProperty(arbitrary, check), { seed: SEED, numRuns: Math.ceil(cases) })
}

function caseOf(url: string, methods: string[]): fc.Arbitrary<Case> {
  const { query = [], body = [] } = WHOLE[url.slice(base.length)] ?? {}
  const offered = methods.flatMap((method) => Array(method === 'POST' ? 8 : 2).fill(method) as string[])
  const any = fc.constantFrom('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND', 'QUERY')
  return fc
    .record({
      method: fc.oneof({ weight: 12, arbitrary: fc.constantFrom(...offered) }, { weight: 1, arbitrary: any }),
      path: pathOf(url),
      query: parametersOf(query).map(join),
      content: contentOf(url, body),
      headers: headersOf(),
    })
    .map(({ content, headers, method, ...rest }) => {
      const bodiless = method === 'GET' || method === 'HEAD'
      return { ...rest, method, body: bodiless ? undefined : content.body, headers: { ...headers, ...content.headers } }
    })
}

/** The address itself, with something in the place of what may stand there. */
function pathOf(url: string): fc.Arbitrary<string> {
  const filled = (place: string, one: string) => url.replace(place, one.replaceAll(/[#?]/g, ''))
  if (url.includes('*')) return junk.map((one) => filled('*', one))
  if (!url.includes(':provider')) return fc.constant(url)
  const other = junk.filter(isRouted)
  const provider = fc.oneof({ weight: 8, arbitrary: fc.constant('company') }, { weight: 1, arbitrary: other })
  return provider.map((one) => filled(':provider', one))
}

/** Whether a part of a path comes as far as a route: what can't be decoded, or is longer than a hundred, does not. */
function isRouted(part: string): boolean {
  try {
    return decodeURIComponent(part).length <= 100
  } catch {
    return false
  }
}

/** Named parameters, some of them wrong, missing or twice, and others that nobody asked for. */
function parametersOf(names: string[]): fc.Arbitrary<Pair[]> {
  const expected = names.map((one) =>
    fc.oneof(
      { weight: 20, arbitrary: fc.tuple(right(one)).map((values) => values.map((value): Pair => [one, value])) },
      { weight: 2, arbitrary: junk.map((value): Pair[] => [[one, value]]) },
      { weight: 1, arbitrary: fc.constant<Pair[]>([]) },
      {
        weight: 1,
        arbitrary: fc.tuple(right(one), right(one)).map((values) => values.map((value): Pair => [one, value])),
      },
    ),
  )
  const further = name.chain((one) => fc.tuple(fc.constant(one), fc.oneof(right(one), junk)))
  const maxLength = names.length === 0 ? 6 : 2
  return fc
    .tuple(fc.tuple(...expected), fc.array(further, { maxLength }))
    .map(([pairs, more]) => [...pairs.flat(), ...more])
}

function right(name: string): fc.Arbitrary<string> {
  const values = RIGHT.get(name)
  return values === undefined ? junk : fc.constantFrom(...values.map(encode))
}

interface Content {
  body: string | Buffer | undefined
  headers: Record<string, string>
}

function contentOf(url: string, names: string[]): fc.Arbitrary<Content> {
  const form = parametersOf(names).map(
    (pairs): Content => ({ body: join(pairs), headers: { 'content-type': 'application/x-www-form-urlencoded' } }),
  )
  const json = fc
    .oneof({ weight: 8, arbitrary: registration() }, { weight: 1, arbitrary: oddJson() })
    .map((body): Content => ({ body, headers: { 'content-type': 'application/json' } }))
  const odd = fc
    .tuple(
      fc.oneof(parametersOf(names).map(join), oddJson(), bytes(), fc.constant('x'.repeat(1_000_000))),
      fc.constantFrom(
        'application/x-www-form-urlencoded; charset=iso-8859-1',
        'application/x-www-form-urlencoded; charset=utf-7; charset=x',
        'APPLICATION/X-WWW-FORM-URLENCODED',
        'application/json; charset=utf-16',
        'application/json',
        'application/scim+json',
        'text/plain',
        'multipart/form-data; boundary=x',
        'multipart/form-data',
        'x',
        '/',
        '',
        'application/json, text/plain',
      ),
      fc.constantFrom({}, { 'content-encoding': 'gzip' }, { 'content-length': '1' }, { 'content-length': 'x' }),
    )
    .map(([body, type, more]): Content => ({ body, headers: { 'content-type': type, ...more } as Content['headers'] }))
  const none = fc.constant<Content>({ body: undefined, headers: {} })
  return fc.oneof(
    { weight: 12, arbitrary: url.endsWith('/register') ? json : form },
    { weight: 1, arbitrary: json },
    { weight: 2, arbitrary: odd },
    { weight: 1, arbitrary: none },
  )
}

/** A registration, each member of which is good, or anything else. */
function registration(): fc.Arbitrary<string> {
  const anything = fc.oneof(
    fc.jsonValue(),
    fc.string({ unit: 'binary' }),
    fc.constantFrom<unknown>(
      ['javascript:alert(1)'],
      ['https://a b'],
      Array(60).fill('https://a.example'),
      ['implicit'],
      ['token'],
      'private_key_jwt',
      '\u0000',
      '\ud800',
      'x'.repeat(3000),
      '',
      null,
      [],
      [null],
      [[]],
      {},
      ['\u0000'],
      ['\udfff'],
      0,
      true,
    ),
  )
  const member = (...good: unknown[]) =>
    fc.oneof({ weight: 20, arbitrary: fc.constantFrom(...good) }, { weight: 1, arbitrary: anything })
  return fc
    .record(
      {
        redirect_uris: member(CALLBACKS, [CALLBACKS[0]]),
        token_endpoint_auth_method: member('none', 'client_secret_basic', 'client_secret_post', ''),
        grant_types: member(['authorization_code', 'refresh_token'], ['authorization_code', 'implicit']),
        response_types: member(['code'], ['code', 'token']),
        scope: member('read write', 'read  write', 'openid', ''),
        client_name: member('A client', '<script>alert(1)</script>', '\u202e', 'x'.repeat(2000)),
        client_uri: member('https://app.example', 'javascript:alert(1)'),
        logo_uri: member('https://app.example/logo.png'),
        contacts: member(['someone@app.example']),
        software_id: member('x'),
        application_type: member('web', 'native'),
        jwks: anything,
        unknown: anything,
      },
      { requiredKeys: ['redirect_uris'] },
    )
    .map((value) => JSON.stringify(value))
}

function oddJson(): fc.Arbitrary<string> {
  return fc.oneof(
    fc.json(),
    fc.constantFrom(
      '',
      'null',
      '{',
      '"\\ud800"',
      '{"redirect_uris":["https://app.example/\\ud800"]}',
      '{"client_name":"\\u0000","redirect_uris":["https://app.example/"]}',
      '{"__proto__":{"redirect_uris":["https://app.example/"]}}',
      '{"constructor":{"prototype":{}}}',
      '{"redirect_uris":{"length":1,"0":"https://app.example/"}}',
      '{"redirect_uris":["https://app.example/"],"redirect_uris":1}',
      '\ufeff{"redirect_uris":["https://app.example/"]}',
      '['.repeat(20_000),
      `${'['.repeat(20_000)}${']'.repeat(20_000)}`,
      `${'{"a":'.repeat(9000)}1${'}'.repeat(9000)}`,
      '1e999999',
    ),
  )
}

function bytes(): fc.Arbitrary<Buffer> {
  return fc.uint8Array({ maxLength: 300 }).map((one) => Buffer.from(one))
}

function headersOf(): fc.Arbitrary<Record<string, string>> {
  const authorization = fc.oneof(
    { weight: 6, arbitrary: fc.constant(undefined) },
    {
      weight: 2,
      arbitrary: fc.constantFrom(
        basic(postern.resourceServer.id, postern.resourceServer.secret),
        basic(confidential.client_id, confidential.client_secret ?? ''),
        basic(confidential.client_id, 'wrong'),
        basic(client.client_id, ''),
        basic('\u0000', '\u0000'),
        basic('', ''),
        basic('%', '%zz'),
        'Basic',
        'Basic !',
        'Basic /w==',
        'Bearer x',
        `Bearer ${'x'.repeat(20_000)}`,
        'Digest username="x"',
        '\u00ff',
      ),
    },
    { weight: 1, arbitrary: text.map((one) => `Basic ${Buffer.from(one).toString('base64')}`) },
  )
  const cookie = fc.oneof(
    { weight: 6, arbitrary: fc.constant(browser.cookie) },
    { weight: 1, arbitrary: fc.constant(undefined) },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        '',
        ';;;=;',
        '__proto__=x; constructor=y',
        browser.cookie.replaceAll(/=[^;]+/g, '=%zz'),
        browser.cookie.replaceAll(/=[^;]+/g, '=%00'),
        browser.cookie.replaceAll(/postern_ss_.{10}/g, 'postern_ss_AAAAAAAAAA'),
        `${browser.cookie}; ${browser.cookie}`,
        `a=${'x'.repeat(9000)}`,
        '\u00ff=\u00ff',
      ),
    },
  )
  return fc
    .record({
      authorization,
      cookie,
      accept: fc.constantFrom(undefined, 'text/html', '*/*', 'application/json', 'x'),
      origin: fc.constantFrom(undefined, 'https://evil.example', 'null'),
      'x-forwarded-for': fc.oneof(fc.ipV4(), fc.ipV6(), fc.constantFrom('', 'x', '1.2.3.4, ::', '::1%eth0', '1', ',')),
      'access-control-request-method': fc.constantFrom(undefined, 'POST', ''),
      'x-request-id': fc.constantFrom(undefined, 'x'.repeat(500)),
    })
    .map((all) =>
      Object.fromEntries(Object.entries(all).filter((one): one is [string, string] => one[1] !== undefined)),
    )
}

/** What an answer must be, whatever was asked. */
function judge({ method, path, headers: sent }: Case, methods: string[], response: LightMyRequestResponse): void {
  const { statusCode, headers, body } = response
  const complain = (what: string) => {
    throw new Error(`${what}: ${statusCode} ${JSON.stringify(headers)} ${body.slice(0, 500)}`)
  }
  if (statusCode >= 500) complain('a fault of ours')
  if (/node_modules|dist\/|\.(js|ts|eta):\d+/.test(body)) complain('it tells of our insides')
  const type = String(headers['content-type'] ?? '')
  const below = path.slice(base.length)
  const isPage = (PAGES.includes(below) || PROVIDER_PAGE.test(below)) && methods.includes(method)
  if (headers.location !== undefined) {
    if (!isPage || statusCode !== 303) complain('nothing but a page sends elsewhere')
    const departs = method === 'POST' && String(headers.location).startsWith(`${PROVIDER}/login/oauth/authorize?`)
    if (!departs && !isOurs(String(headers.location))) complain('an open redirect')
  } else if (type.startsWith('text/html')) {
    if (!isPage && ![404, 405].includes(statusCode)) complain('a page for a machine')
    if (!String(headers['content-security-policy']).includes("frame-ancestors 'none'"))
      complain('a page without a policy')
    if (/<script|<%/.test(body)) complain('a page that runs what was sent')
  } else if (isPage && sent.accept !== 'application/json') {
    complain('no page for a person')
  } else if (body !== '') {
    if (!type.startsWith('application/json')) complain('neither JSON nor a page')
    if (statusCode >= 400) judgeError(JSON.parse(body))
    else JSON.parse(body)
  } else if (statusCode >= 400 && method !== 'HEAD') {
    complain('an error without a word')
  }
}

/** An OAuth error has a known word, and text that every client can show (RFC 6749 §5.2). */
function judgeError({ error, error_description: description, ...others }: Record<string, string>): void {
  const known =
    Object.keys(ERROR_STATUS).includes(error ?? '') && /^[\x20\x21\x23-\x5b\x5d-\x7e]+$/.test(description ?? '')
  if (!known || Object.keys(others).some((name) => name !== 'registration_endpoint'))
    throw new Error(`not an OAuth error: ${JSON.stringify({ error, description })}`)
}

/** An address of ours, or a response to a redirect URI that was registered. */
function isOurs(location: string): boolean {
  if (!/^[\x21-\x7e]+$/.test(location)) return false
  if (location.startsWith(`${base}/`)) return new URL(location, issuer).origin === new URL(issuer).origin
  const response = CALLBACKS.some((uri) => location.startsWith(`${uri}${uri.includes('?') ? '&' : '?'}`))
  if (!response && !/^http:\/\/127\.0\.0\.1:\d+\/callback\?/.test(location)) return false
  const { searchParams } = new URL(location)
  return searchParams.getAll('iss').join() === issuer && ['code', 'error'].some((word) => searchParams.has(word))
}

/** Requests by hand, most of which no client would send. */
function oddRequests(): string[] {
  const line = `GET ${base}/health/live HTTP/1.1\r\n`
  const post = `POST ${base}/token HTTP/1.1\r\nhost: x\r\n`
  const paths = [
    '//',
    '/../..',
    '/%',
    '/%zz',
    '/%00',
    '/\xff',
    '/..%2f',
    '*',
    'http://evil.example/auth/login',
    '/auth//login',
    '/AUTH/LOGIN',
    '/auth/login/',
    '/auth/login;x',
    '/auth/%6cogin',
    `/${'x'.repeat(20_000)}`,
    '//evil.example/auth/',
  ]
  return [
    ...paths.map((path) => `GET ${path} HTTP/1.1\r\nhost: x\r\naccept: text/html\r\n\r\n`),
    ...paths.map((path) => `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n`),
    '\r\n\r\n\r\n',
    'GET /\r\n\r\n',
    'GET / HTTP/9.9\r\n\r\n',
    'get / http/1.1\r\n\r\n',
    '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', // TLS
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example\r\n\r\n',
    `OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n`,
    `TRACE ${base}/token HTTP/1.1\r\nhost: x\r\n\r\n`,
    `${line}\r\n`,
    `${line}host: x\r\nhost: y\r\n\r\n`,
    `${line}host: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n`,
    `${line}host: x\r\nexpect: 100-continue\r\n\r\n`,
    `${line}host: x\r\nexpect: something\r\n\r\n`,
    `${line}host: x\r\nx: ${'x'.repeat(40_000)}\r\n\r\n`,
    `${line}host: x\r\n${'x: y\r\n'.repeat(3000)}\r\n`,
    `${line}host: x\r\nno colon\r\n\r\n`,
    `${line}host: x\r\nx : y\r\n\r\n`,
    `${line}host: x\r\n x: folded\r\n\r\n`,
    `${line}host: x\r\nx: \x00\r\n\r\n`,
    `${post}content-length: 3\r\ncontent-length: 4\r\n\r\nabcd`,
    `${post}content-length: -1\r\n\r\n`,
    `${post}content-length: 99999999999999999999\r\n\r\n`,
    `${post}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`,
    `${post}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n`,
    `${post}transfer-encoding: chunked\r\n\r\nzz\r\n`,
    `${post}transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nx`,
    `${post}content-type: application/x-www-form-urlencoded\r\ntransfer-encoding: chunked\r\n\r\n${'1\r\nx\r\n'.repeat(9000)}0\r\n\r\n`,
    `${post}content-type: application/x-www-form-urlencoded\r\ncontent-length: 5\r\n\r\na=b&c${line}host: x\r\n\r\n`,
  ]
}

/** Sends bytes and ends the sending. @returns what came back */
async function exchange(sent: Buffer): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', signal: AbortSignal.timeout(20_000) })
  let answer = ''
  socket.on('data', (chunk) => {
    answer += chunk.toString('latin1')
  })
  const closed = new Promise<void>((resolve, reject) => {
    socket.on('close', resolve)
    socket.on('error', (error) => ((error as NodeJS.ErrnoException).code === 'ABORT_ERR' ? reject(error) : resolve()))
  })
  socket.end(sent)
  await closed
  return answer
}

/** A browser that is signed in, with a form of its session and the consent that it was shown. */
async function openBrowser(): Promise<{
  cookie: string
  session: string
  user: { id: string; password_hash: string | null }
  formToken: string
  shown: string
}> {
  const jar = new Map<string, string>()
  const send = async (url: string, fields?: Pair[]) => {
    const response = await postern.server.inject({
      url,
      headers: { cookie: cookieOf(jar), 'content-type': 'application/x-www-form-urlencoded' },
      ...(fields === undefined ? {} : { method: 'POST' as const, payload: join(fields) }),
    })
    for (const { name, value } of response.cookies) jar.set(name, value)
    return response.body
  }
  const formToken = formTokenOf(await send(`${base}/login`))
  const typed: Pair[] = [
    ['username', 'alice'],
    ['password', encode(PASSWORD)],
    ['form_token', encode(formToken)],
  ]
  await send(`${base}/login`, typed)
  const request = new URL(authorizeUrl(postern, client, pkce().challenge))
  const page = await send(`${base}/consent${request.search}`)
  const user = await postern.db.selectFrom('user').select(['id', 'password_hash']).executeTakeFirstOrThrow()
  return {
    cookie: cookieOf(jar),
    session: [...jar.values()].find((value) => value.startsWith('postern_ss_')) ?? '',
    user,
    formToken: formTokenOf(page),
    shown: /name="shown" value="([^"]+)"/.exec(page)?.[1] ?? '',
  }
}

/** Cases that sign out or in end the session, and wrong passwords close the account: the next ones need them. */
async function repairBrowser({ path }: Case): Promise<void> {
  if (!/\/log(in|out)|\/account\//.test(path)) return
  await postern.db.deleteFrom('throttle').execute()
  await postern.db.deleteFrom('session').execute()
  await insertSession(postern.db, hashSecret(browser.session), browser.user, 3600, {
    userAgent: undefined,
    address: '127.0.0.1',
  })
}

/** Adds PROVIDER. */
async function addProvider(): Promise<void> {
  await insertIdentityProvider(postern.db, identityProvider({ kind: 'github', issuer: PROVIDER, scope: ['read:user'] }))
}

async function prepareValues(): Promise<Record<string, string[]>> {
  const [person, { verifier, challenge }] = [new Person(), pkce()]
  const tokens = []
  const codes = []
  for (let n = 0; n < 20; n += 1) {
    tokens.push(await obtainTokens(postern, client, {}, person))
    const answer = await person.authorize(authorizeUrl(postern, client, challenge))
    codes.push(answer.searchParams.get('code') ?? '')
  }
  return {
    client_id: [client.client_id, client.client_id, confidential.client_id, postern.resourceServer.id],
    client_secret: [confidential.client_secret ?? '', postern.resourceServer.secret],
    redirect_uri: [...CALLBACKS, 'http://127.0.0.1:9/callback'],
    response_type: ['code'],
    response_mode: ['query'],
    code_challenge: [challenge],
    code_challenge_method: ['S256', 'plain'],
    code_verifier: [verifier],
    code: codes,
    grant_type: [
      'authorization_code',
      'refresh_token',
      'client_credentials',
      'urn:ietf:params:oauth:grant-type:token-exchange',
    ],
    refresh_token: tokens.map((one) => one.refresh_token),
    token: tokens.flatMap((one) => [one.access_token, one.refresh_token]),
    token_type_hint: ['access_token', 'refresh_token'],
    scope: ['read', 'read write', 'openid read', ''],
    resource: [RESOURCE, `${RESOURCE}/`, 'https://other.example'],
    state: ['a state', 'x'.repeat(3000)],
    prompt: ['none', 'login', 'consent', 'login consent', 'select_account'],
    continue: ['authorize', 'account'],
    form_token: [browser.formToken],
    decision: ['approve', 'deny'],
    shown: [browser.shown],
    username: ['alice', 'nobody'],
    password: [PASSWORD, 'wrong'],
    grant: ['all', randomUUID()],
    session: ['others', randomUUID()],
    confirmed: ['yes'],
    provider: ['company'],
    current_password: ['wrong', 'wrong', PASSWORD],
    new_password: [PASSWORD, 'short'],
    subject_token: tokens.map((one) => one.access_token),
    subject_token_type: [
      'urn:ietf:params:oauth:token-type:access_token',
      'urn:ietf:params:oauth:token-type:refresh_token',
    ],
    audience: ['company'],
    request: ['eyJhbGciOiJub25lIn0.e30.'],
    request_uri: ['urn:ietf:params:oauth:request_uri:x'],
  }
}

/** The last are those that end what the others need. */
function rank(url: string): number {
  if (url.includes('/account/')) return 3
  return url.endsWith('/revoke') ? 2 : url.endsWith('/token') ? 1 : 0
}

function cookieOf(jar: Map<string, string>): string {
  return [...jar].map(([name, value]) => `${name}=${value}`).join('; ')
}

function formTokenOf(page: string): string {
  return /name="form_token" value="([^"]+)"/.exec(page)?.[1] ?? ''
}

function join(pairs: Pair[]): string {
  return pairs.map(([name, value]) => `${name}=${value}`).join('&')
}

/** Encodes any text, also one that is not well-formed. */
function encode(text: string): string {
  return encodeURIComponent(text.toWellFormed())
}
