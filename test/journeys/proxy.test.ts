/**
 * The whole story once more as it is in production: Postern below a path of a host that it shares with the MCP
 * server, behind a proxy that ends TLS. Each is a process of its own.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:https'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { decide, openBrowser, signIn, WITHOUT_BROWSER } from '../support/browser.ts'
import { listenForCallback } from '../support/callback.ts'
import { TEST_CERTIFICATE } from '../support/certificate.ts'
import { letTimePass } from '../support/database.ts'
import { startExampleServer } from '../support/example-server.ts'
import { authorizeUrl, pkce, post } from '../support/flow.ts'
import { CLIENT_PACKAGE, MemoryProvider, SDK } from '../support/mcp-client.ts'
import { textOf } from '../support/person.ts'
import { freePort } from '../support/postern.ts'
import { startPosternProcess } from '../support/postern-process.ts'
import { startProxy } from '../support/proxy.ts'

const root = t

// Node.js reads the certificates to trust when it starts, so these tests run in a second process.
if (process.env.TEST_TRUSTS_LOCALHOST === undefined) {
  const folder = await mkdtemp(join(tmpdir(), 'postern-certificate-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const file = join(folder, 'localhost.pem')
  await writeFile(file, TEST_CERTIFICATE)
  await t.spawn(process.execPath, [import.meta.filename], {
    env: { ...process.env, NODE_EXTRA_CA_CERTS: file, TEST_TRUSTS_LOCALHOST: 'yes' },
  })
} else {
  await behindProxy(t)
}

async function behindProxy(t: Test): Promise<void> {
  const [port, appendingPort, posternPort, notesPort] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ]
  const origin = `https://localhost:${port}`
  const issuer = `${origin}/auth`
  const url = `${origin}/mcp`
  const options = { posternPort, posternPath: '/auth', otherPort: notesPort }
  const settings = { ISSUER: issuer, POSTERN_TRUST_PROXY: '1' }
  const [postern] = await Promise.all([
    startPosternProcess(t, settings, posternPort),
    startProxy(t, { ...options, port, forwarded: 'replaced' }),
    startProxy(t, { ...options, port: appendingPort, forwarded: 'appended' }),
  ])
  const added = await postern.addResource(url)
  await startExampleServer(t, added, { PORT: String(notesPort), HOST: '127.0.0.1' })

  const FORGED = {
    'x-forwarded-for': '203.0.113.7',
    'x-forwarded-host': 'evil.example',
    'x-forwarded-proto': 'http',
    'x-forwarded-port': '80',
    'x-forwarded-prefix': '/evil',
    forwarded: 'for=203.0.113.7;host=evil.example;proto=http',
  }

  t.test('both metadata documents are found through the proxy (RFC 8414 §3.1, RFC 9728 §3.1)', async (t) => {
    for (const address of [
      `${origin}/.well-known/oauth-authorization-server/auth`,
      `${issuer}/.well-known/oauth-authorization-server`,
    ]) {
      const response = await fetch(address)
      t.equal(response.status, 200, address)
      const metadata = (await response.json()) as Record<string, string>
      t.equal(metadata.issuer, issuer)
      for (const [name, value] of Object.entries(metadata)) {
        if (name.endsWith('_endpoint')) t.ok(value.startsWith(`${issuer}/`), `${name} ${value}`)
      }
    }
    t.equal((await fetch(`${origin}/.well-known/oauth-authorization-server`)).status, 404, 'not at the root')
    t.match(await (await fetch(`${origin}/.well-known/oauth-protected-resource/mcp`)).json(), {
      authorization_servers: [issuer],
    })
  })

  for (const sdk of [SDK, CLIENT_PACKAGE]) {
    // skipped only where there is no Chromium, and says so: WITHOUT_BROWSER is the reason
    t.test(`${sdk.name} connects, refreshes, and stops when its grant ends`, { skip: WITHOUT_BROWSER }, async (t) => {
      const visitor = await openBrowser(t, root)
      const callback = await listenForCallback(t)
      const provider = new MemoryProvider(callback.redirectUri)
      const connection = await sdk.connect(url, provider, async (address) => {
        t.equal(address.origin + address.pathname, `${issuer}/authorize`)
        await visitor.page.goto(address.href)
        await signIn(visitor)
        await decide(visitor, 'approve')
        const answer = await callback.next()
        t.equal(answer.searchParams.get('iss'), issuer)
        return answer
      })
      t.teardown(() => connection.close())
      await connection.call('notes_add', { text: sdk.name })
      const before = provider.tokens()
      await letTimePass(postern.db, Number(before?.expires_in) + 1)
      t.ok((await connection.call('notes_list')).includes(sdk.name))
      t.not(provider.tokens()?.access_token, before?.access_token)
      const client_id = provider.clientInformation()?.client_id
      await post({ issuer }, '/revoke', { client_id, token: provider.tokens()?.refresh_token })
      const error = await connection.call('notes_list').then(
        () => undefined,
        (thrown) => thrown,
      )
      t.ok(sdk.isUnauthorized(error))

      const cookies = await visitor.context.cookies(issuer)
      t.ok(cookies.length > 0)
      for (const cookie of cookies) {
        t.match(cookie, { secure: true, httpOnly: true, path: '/', domain: 'localhost' }, cookie.name)
        t.ok(cookie.name.startsWith('__Host-'), cookie.name)
      }
      t.strictSame(visitor.complaints, [])
    })
  }

  t.test('headers that a client makes up change no document and no redirect', async (t) => {
    for (const [how, proxyPort] of [
      ['replaced', port],
      ['appended', appendingPort],
    ] as const) {
      const get = (path: string) => ask(proxyPort, path, { headers: { ...FORGED, host: `localhost:${port}` } })
      const metadata = await get('/.well-known/oauth-authorization-server/auth')
      t.equal(metadata.body, await (await fetch(`${origin}/.well-known/oauth-authorization-server/auth`)).text(), how)
      const registered = await ask(proxyPort, '/auth/register', {
        method: 'POST',
        headers: { ...FORGED, 'content-type': 'application/json' },
        body: JSON.stringify({ redirect_uris: ['https://app.example/callback'], token_endpoint_auth_method: 'none' }),
      })
      const client = JSON.parse(registered.body)
      const authorize = new URL(authorizeUrl({ issuer }, client, pkce().challenge, { resource: url }))
      const toSignIn = await get(authorize.pathname + authorize.search)
      t.equal(toSignIn.status, 303)
      const location = new URL(toSignIn.location, issuer)
      t.equal(location.origin + location.pathname, `${issuer}/login`)
      const page = await get(location.pathname + location.search)
      t.equal(page.status, 200)
      t.notMatch(page.body, /evil/)
      t.match(page.cookies, /^__Host-.*; Secure/)
      const denied = new URL(authorizeUrl({ issuer }, client, pkce().challenge, { resource: url, prompt: 'none' }))
      const answer = new URL((await get(denied.pathname + denied.search)).location)
      t.equal(answer.origin, 'https://app.example')
      t.equal(answer.searchParams.get('iss'), issuer)
    }
  })

  t.test('sign-ins are counted for the address that the proxy saw, whatever a client says', async (t) => {
    const localAddress = (await canUse('127.0.0.2')) ? '127.0.0.2' : '127.0.0.1' // not the proxy's own, where there are two
    for (const proxyPort of [port, appendingPort]) {
      const before = postern.server.lines.length
      for (const forged of ['203.0.113.7', '198.51.100.9, 203.0.113.8']) {
        const page = await ask(proxyPort, '/auth/login', { localAddress })
        const cookie = page.cookies.split(';')[0] ?? ''
        const token = /name="form_token" value="([^"]+)"/.exec(page.body)?.[1] ?? ''
        const refused = await ask(proxyPort, '/auth/login', {
          method: 'POST',
          localAddress,
          headers: {
            ...FORGED,
            'x-forwarded-for': forged,
            cookie,
            'content-type': 'application/x-www-form-urlencoded',
          },
          body: new URLSearchParams({ form_token: token, username: 'alice', password: 'wrong password' }).toString(),
        })
        t.equal(refused.status, 403)
        t.match(textOf(refused.body), /not right/)
      }
      const networks = () =>
        postern.server.lines
          .slice(before)
          .filter((line) => line.includes('"event":"sign_in"'))
          .map((line) => JSON.parse(line).network)
      await postern.server.line(() => networks().length >= 2)
      t.strictSame(networks(), [localAddress, localAddress])
    }
  })
}

interface Answer {
  status: number
  location: string
  cookies: string
  body: string
}

/** One request to a proxy, from an address and with headers that fetch doesn't let a program choose. */
function ask(
  port: number,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string; localAddress?: string } = {},
): Promise<Answer> {
  const { body, ...others } = options
  return new Promise((resolve, reject) => {
    const agent = new Agent({ keepAlive: false })
    const sent = request({ host: '127.0.0.1', servername: 'localhost', port, path, agent, ...others }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk) => {
        text += chunk
      })
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          location: response.headers.location ?? '',
          cookies: (response.headers['set-cookie'] ?? []).join('\n'),
          body: text,
        }),
      )
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

/** Whether this machine has an address: Linux has all of 127.0.0.0/8, others have the first alone. */
function canUse(address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.on('error', () => resolve(false))
    server.listen(0, address, () => server.close(() => resolve(true)))
  })
}
