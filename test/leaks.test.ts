import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { decodeCredential } from '../src/tokens/secret.ts'
import { runProgram, startProgram } from './support/child-process.ts'
import { basic, partsOf } from './support/credentials.ts'
import { authorizeUrl, pkce, post } from './support/flow.ts'
import { Person } from './support/person.ts'
import { freePort } from './support/postern.ts'

const CLI = join(import.meta.dirname, '..', 'src', 'cli.js')
const RESOURCE = 'https://mcp.example.com/mcp'
const CALLBACK = 'https://app.example/callback'
const REGISTRATION_TOKEN = 'initial access token of the operator'.replaceAll(' ', '-')
const PASSWORDS = {
  first: 'the first password of alice',
  wrong: 'a wrong password of alice',
  second: 'the second password of alice',
  short: 'Zshort7',
}

/** What the story makes, or tries. */
const KINDS = [
  'Basic credentials',
  'access_token',
  'browser cookie',
  'client secret',
  'code',
  'code_verifier',
  'form cookie',
  'form token',
  'password',
  'refresh_token',
  'registration token',
  'resource server secret',
  'session cookie',
  'wrong client secret',
  'wrong code_verifier',
  'wrong registration token',
  'wrong resource server secret',
]

/** Everything that nobody else may learn, by what it is. */
const secrets = new Map<string, string>()

function keep(what: string, secret: unknown): string {
  if (typeof secret !== 'string' || secret.length < 6) throw new Error(`no ${what}: ${secret}`)
  secrets.set(`${what} ${[...secrets.keys()].filter((name) => name.startsWith(what)).length + 1}`, secret)
  return secret
}

/** A person whose cookies and form tokens are kept. */
class WatchedPerson extends Person {
  override async request(address: string, init: RequestInit = {}): Promise<Response> {
    const response = await super.request(address, init)
    for (const line of response.headers.getSetCookie()) {
      const [, kind, value] = /postern-(\w+)-\w+=([^;]*)/.exec(line) ?? []
      if (value !== '') keep(`${kind} cookie`, value)
    }
    for (const [, token] of (await response.clone().text()).matchAll(/name="form_token" value="([^"]+)"/g)) {
      keep('form token', token)
    }
    return response
  }
}

t.test('nothing secret is in the log or in the files of the database', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'postern-leaks-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const port = await freePort()
  const env = {
    PORT: String(port),
    DATA_DIR: folder,
    LOG_LEVEL: 'trace',
    POSTERN_REGISTRATION: 'token',
    POSTERN_REGISTRATION_TOKEN: REGISTRATION_TOKEN,
  }
  keep('registration token', REGISTRATION_TOKEN)
  const server = await startProgram(t, CLI, {
    args: ['serve'],
    env,
    ready: (line) => line.includes('"event":"started"'),
  })
  let errors = ''
  server.process.stderr?.on('data', (chunk) => {
    errors += chunk
  })
  const line = server.lines.find((one) => one.includes('"event":"setup_link"')) ?? ''
  const link = /http:\S+\/setup\?token=[\w-]+/.exec(line)?.[0] ?? ''
  await tellTheWholeStory(`http://localhost:${port}`, link, env)
  await server.stop()
  t.equal(server.process.exitCode, 0)

  const setupToken = new URL(link).searchParams.get('token') ?? ''
  const log = Buffer.from([...server.lines, errors].join('\n'))
  const logWithoutLink = Buffer.from([...server.lines.filter((one) => one !== line), errors].join('\n'))
  t.ok(server.lines.length > 20, `${server.lines.length} lines`)
  t.same([...new Set([...secrets.keys()].map((name) => name.replace(/ \d+$/, '')))].sort(), KINDS)
  t.same(findSecrets(logWithoutLink, needlesOf(secrets)), [])
  const exception = findSecrets(log, needlesOf(new Map([['set-up link', setupToken]])))
  t.ok(exception.includes('set-up link, as it is'), 'the one exception, which shows that the search works')
  t.notOk(logWithoutLink.includes(setupToken))

  secrets.set('set-up link', setupToken)
  let size = 0
  const found: string[] = []
  for (const path of await filesBelow(folder)) {
    const content = await readFile(path)
    size += content.length
    found.push(...findSecrets(content, needlesOf(secrets)).map((secret) => `${path.replace(folder, '')}: ${secret}`))
  }
  t.ok(size > 20_000_000, `${size} bytes`)
  t.same(found, [])
})

t.test('the password of a database is in no message', async (t) => {
  for (const url of [
    'postgres://postern:hunter2hunter@localhost:1/x',
    'postgres://postern:hunter2hunter#x@localhost/x',
  ]) {
    for (const command of ['migrate', 'serve']) {
      if (command === 'serve' && !url.includes('#')) continue // it would wait for the database
      const { code, output, errors } = await runProgram(CLI, { args: [command], env: { DATABASE_URL: url } })
      t.equal(code, 1)
      t.match(errors, /DATABASE_URL/)
      t.notMatch(output + errors, 'hunter2hunter')
    }
  }
})

t.test('the search finds a secret in every form in which it may have come', async (t) => {
  const token = 'postern_at_dGhlIHNlY3JldCBvZiBhIHRva2VuLCB0aGlydHktdHdvIGJ5dGVzIQabcdef'
  const needles = needlesOf(new Map([['token', token]]))
  const content = Buffer.from(token.slice('postern_at_'.length, -6), 'base64url')
  const written = [
    `{"level":"info","msg":"${token}"}`,
    `{"url":"/introspect?token=${encodeURIComponent(token)}"}`,
    `{"body":"${Buffer.from(token).toString('base64')}"}`,
    `{"body":"${Buffer.from(`token=${token}`).toString('base64')}"}`,
    `{"body":"\\x${Buffer.from(token).toString('hex')}"}`,
    `\\x${content.toString('hex')}`,
    content.toString('hex').toUpperCase(),
    content.toString('base64'),
    JSON.stringify(content),
  ]
  for (const text of written) t.not(findSecrets(Buffer.from(`before ${text} after`), needles).length, 0, text)
  t.not(findSecrets(Buffer.concat([Buffer.alloc(9), content, Buffer.alloc(9)]), needles).length, 0, 'raw bytes')
  t.same(findSecrets(Buffer.from('{"level":"info","msg":"nothing"} postern_at_'), needles), [])
})

/** Everything that people, clients, resource servers and operators do, and what goes wrong. */
async function tellTheWholeStory(issuer: string, link: string, env: Record<string, string>): Promise<void> {
  const postern = { issuer }
  const alice = new WatchedPerson()
  for (const password of Object.values(PASSWORDS)) keep('password', password)
  const open = async (address: string) => ({ address, html: await (await alice.request(address)).text() })
  const command = async (args: string[], input = '') => {
    const { code, output, errors } = await runProgram(CLI, { args, env, input })
    if (code !== 0) throw new Error(`postern ${args.join(' ')}: ${errors}`)
    return output
  }
  // people
  for (const password of [PASSWORDS.short, PASSWORDS.first]) {
    await alice.submit(await open(link), '/setup', { username: 'alice', password })
  }
  await alice.submit(await open(`${issuer}/account`), '/logout', {})
  for (const password of [PASSWORDS.wrong, PASSWORDS.first]) {
    await alice.submit(await open(`${issuer}/login`), '/login', { username: 'alice', password })
  }
  const withoutToken = new URLSearchParams({ username: 'alice', password: PASSWORDS.first })
  await alice.request(`${issuer}/login`, { method: 'POST', body: withoutToken })
  // operators
  const resource = JSON.parse(
    await command(['resource', 'add', RESOURCE, '--scope', 'read=Read', '--scope', 'write=Write', '--json']),
  )
  const resourceSecret = keep('resource server secret', resource.client_secret)
  await command(['user', 'set-password', 'alice'], `${PASSWORDS.second}\n`)
  await command(['user', 'add', 'bob'], `${PASSWORDS.first}\n`)
  // clients
  const register = async (method: string, token = REGISTRATION_TOKEN) => {
    const response = await fetch(`${issuer}/register`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify({ redirect_uris: [CALLBACK], token_endpoint_auth_method: method }),
    })
    return (await response.json()) as { client_id: string; client_secret: string }
  }
  await register('client_secret_post', keep('wrong registration token', 'not-the-registration-token'))
  const client = await register('client_secret_post')
  const other = await register('client_secret_basic')
  for (const one of [client, other]) keep('client secret', one.client_secret)
  const wrongSecret = keep('wrong client secret', 'a-client-secret-that-is-wrong')
  const credentials = { client_id: client.client_id, client_secret: client.client_secret }
  const send = async (path: string, fields: Record<string, string>) => {
    const { status, body } = await post(postern, path, fields)
    for (const name of ['access_token', 'refresh_token']) if (name in body) keep(name, body[name])
    return { status, body: body as Record<string, string> }
  }
  const flow = async () => {
    const { verifier, challenge } = pkce()
    const address = authorizeUrl(postern, { ...client, redirect_uris: [CALLBACK] }, challenge)
    const answer = await alice.authorize(address, { password: PASSWORDS.second })
    const code = keep('code', answer.searchParams.get('code'))
    keep('code_verifier', verifier)
    const redemption = { grant_type: 'authorization_code', code, code_verifier: verifier, ...credentials }
    await send('/token', { ...redemption, code_verifier: keep('wrong code_verifier', pkce().verifier) })
    await send('/token', { ...redemption, client_secret: wrongSecret })
    const { status, body } = await send('/token', redemption)
    if (status !== 200) throw new Error(`redeemed with ${status}`)
    await send('/token', redemption) // a retry
    return body
  }
  const refresh = (token: string | undefined, fields: Record<string, string> = {}) =>
    send('/token', { grant_type: 'refresh_token', refresh_token: token ?? '', ...credentials, ...fields })
  const first = await flow()
  const second = (await refresh(first.refresh_token)).body
  const third = (await refresh(second.refresh_token)).body
  if ((await refresh(first.refresh_token)).body.refresh_token !== third.refresh_token) throw new Error('no convergence')
  await refresh(first.refresh_token, { scope: 'read' })
  await refresh(third.refresh_token, { resource: 'https://other.example' })
  await refresh(third.refresh_token, { client_id: other.client_id, client_secret: other.client_secret })
  await refresh(third.refresh_token?.slice(0, -1), {})
  // resource servers
  const ask = async (token: string | undefined, authorization: string) =>
    post(postern, '/introspect', { token: token ?? '' }, { authorization })
  const asServer = basic(resource.client_id, keep('resource server secret', resourceSecret))
  const { body: answer } = await ask(third.access_token, asServer)
  if (answer.active !== true) throw new Error('not active')
  await ask(third.access_token, basic(resource.client_id, keep('wrong resource server secret', 'not-the-right-one')))
  await ask(third.access_token, keep('Basic credentials', basic(client.client_id, client.client_secret)))
  await ask(first.access_token, `Bearer ${third.access_token}`)
  // what is hardly a request
  await fetch(`${issuer}/token?access_token=${third.access_token}`)
  await fetch(`${issuer}/nowhere/${third.access_token}`, { headers: { authorization: `Bearer ${third.access_token}` } })
  await fetch(`${issuer}/token`, {
    method: 'POST',
    body: JSON.stringify({ refresh_token: third.refresh_token, ...credentials }),
  })
  await fetch(`${issuer}/%zz?token=${third.access_token}`)
  await fetch(`${issuer}/register`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${REGISTRATION_TOKEN}` },
    body: `{"client_secret":"${client.client_secret}"`,
  })
  await send('/token', { grant_type: 'refresh_token', refresh_token: `${third.refresh_token}\0`, ...credentials })
  await send('/revoke', { token: third.access_token ?? '', ...credentials })
  await send('/revoke', { token: third.refresh_token ?? '', ...credentials })
  await refresh(third.refresh_token)
  const last = await flow()
  await refresh((await refresh(last.refresh_token)).body.refresh_token)
}

interface Needle {
  name: string
  bytes: Buffer
}

/** Each secret in every form in which it may have been written. */
function needlesOf(secrets: ReadonlyMap<string, string>): Needle[] {
  return [...secrets].flatMap(([name, secret]) => [
    ...formsOf(name, Buffer.from(secret)),
    { name: `${name}, percent-encoded`, bytes: Buffer.from(encodeURIComponent(secret)) },
    { name: `${name}, form-encoded`, bytes: Buffer.from(new URLSearchParams([['', secret]]).toString().slice(1)) },
    ...contentsOf(secret).flatMap(([part, bytes]) => formsOf(`${part} of ${name}`, bytes)),
  ])
}

/** The random bytes in a credential: all of them, and those that say something by themselves. */
function contentsOf(secret: string): [string, Buffer][] {
  if (/^[\w-]{43}$/.test(secret)) return [['bytes', Buffer.from(secret, 'base64url')]]
  if (!/^postern_\w\w_/.test(secret)) return []
  if (secret.startsWith('postern_rt_') && decodeCredential('refreshToken', secret) !== undefined) {
    const { lineage, secret: part } = partsOf(secret)
    return [
      ['lineage', lineage],
      ['secret part', part],
    ]
  }
  return [['bytes', Buffer.from(secret.slice(11, -6), 'base64url')]]
}

function formsOf(name: string, bytes: Buffer): Needle[] {
  const hex = bytes.toString('hex')
  return [
    { name: `${name}, as it is`, bytes },
    { name: `${name}, in hexadecimal`, bytes: Buffer.from(hex) },
    { name: `${name}, in hexadecimal`, bytes: Buffer.from(hex.toUpperCase()) },
    { name: `${name}, as a list of bytes`, bytes: Buffer.from([...bytes].join(',')) },
    // inside of longer text in base64, the same bytes come in three shapes
    ...[0, 1, 2].flatMap((offset) =>
      (['base64', 'base64url'] as const).map((encoding) => {
        const shape = Buffer.concat([Buffer.alloc(offset), bytes])
          .toString(encoding)
          .replace(/=+$/, '')
        const [start, end] = [Math.ceil((offset * 4) / 3), (offset + bytes.length) % 3 === 0 ? shape.length : -1]
        return { name: `${name}, in ${encoding}`, bytes: Buffer.from(shape.slice(start, end)) }
      }),
    ),
  ]
}

/** The names of the secrets that are in a text, read once whatever their number. */
function findSecrets(text: Buffer, needles: Needle[]): string[] {
  const byStart = new Map<number, Needle[]>()
  const starts = new Uint8Array(1 << 24)
  for (const needle of needles) {
    const start = needle.bytes.readUIntBE(0, 3)
    starts[start] = 1
    byStart.set(start, [...(byStart.get(start) ?? []), needle])
  }
  const found = new Set<string>()
  let window = 0
  for (let position = 0; position < text.length; position += 1) {
    window = ((window << 8) | (text[position] as number)) & 0xffffff
    if (starts[window] === 0 || position < 2) continue
    for (const { name, bytes } of byStart.get(window) ?? []) {
      if (text.subarray(position - 2, position - 2 + bytes.length).equals(bytes)) found.add(name)
    }
  }
  return [...found]
}

async function filesBelow(folder: string): Promise<string[]> {
  const paths = (await readdir(folder, { recursive: true })).map((name) => join(folder, name))
  const files = await Promise.all(paths.map(async (path) => ((await stat(path)).isFile() ? [path] : [])))
  return files.flat()
}
