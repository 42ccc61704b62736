import t, { type Test } from 'tap'
import { addResource, freePort, startTestPostern, type TestPostern } from '../support/postern.ts'
import { until } from '../support/until.ts'

const WELL_KNOWN = '/.well-known/oauth-authorization-server'
const ORIGIN = { origin: 'https://page.example' }

async function get(address: string, headers: Record<string, string> = ORIGIN) {
  const response = await fetch(address, { headers, redirect: 'manual' })
  const text = await response.text()
  return { status: response.status, headers: response.headers, text, body: json(text) }
}

function json(text: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** A Postern whose issuer has the path /auth, and the origin that it is on. */
async function startBelowPath(t: Test): Promise<{ postern: TestPostern; origin: string }> {
  const port = await freePort()
  const origin = `http://localhost:${port}`
  return { postern: await startTestPostern(t, { port, issuer: `${origin}/auth` }), origin }
}

/** A 404 as a client must get it: JSON, never a page or a redirect. */
function isNotFound(t: Test, answer: Awaited<ReturnType<typeof get>>, address: string): void {
  t.equal(answer.status, 404, address)
  t.match(answer.headers.get('content-type'), /^application\/json/, address)
  t.match(answer.body, { error: 'not_found' }, address)
}

t.test('metadata is at the well-known address (RFC 8414 §3)', async (t) => {
  const postern = await startTestPostern(t)
  const { status, headers, text, body } = await get(postern.issuer + WELL_KNOWN)
  t.equal(status, 200)
  t.match(headers.get('content-type'), /^application\/json/)
  t.equal(headers.get('cache-control'), 'public, max-age=5')
  t.match(body, {
    issuer: postern.issuer,
    authorization_endpoint: `${postern.issuer}/authorize`,
    token_endpoint: `${postern.issuer}/token`,
    registration_endpoint: `${postern.issuer}/register`,
    revocation_endpoint: `${postern.issuer}/revoke`,
    introspection_endpoint: `${postern.issuer}/introspect`,
    scopes_supported: ['read', 'write'],
    grant_types_supported: ['authorization_code', 'refresh_token'],
    code_challenge_methods_supported: ['S256'],
    token_endpoint_auth_methods_supported: ['none', 'client_secret_basic', 'client_secret_post'],
    authorization_response_iss_parameter_supported: true,
  })
  t.notMatch(text, /null|""|\[\]/, 'a member without a value is left out')
})

t.test('every endpoint that metadata names is there', async (t) => {
  const { postern } = await startBelowPath(t)
  const { body } = await get(`${postern.issuer}${WELL_KNOWN}`)
  const endpoints = Object.entries(body ?? {}).filter(([name]) => name.endsWith('_endpoint'))
  t.equal(endpoints.length, 7)
  for (const [name, address] of endpoints) t.not((await get(String(address))).status, 404, name)
})

t.test('below a path the document is before and after the path, and not at the root (RFC 8414 §3.1)', async (t) => {
  const { postern, origin } = await startBelowPath(t)
  const inserted = await get(`${origin}${WELL_KNOWN}/auth`)
  const appended = await get(`${origin}/auth${WELL_KNOWN}`)
  t.equal(inserted.status, 200)
  t.equal(inserted.text, appended.text)
  t.match(inserted.body, { issuer: `${origin}/auth`, token_endpoint: `${origin}/auth/token` })
  t.equal(postern.issuer, `${origin}/auth`)
  for (const path of [
    WELL_KNOWN,
    `${WELL_KNOWN}/`,
    `${WELL_KNOWN}/other`,
    `${WELL_KNOWN}/auth/other`,
    `/auth/auth${WELL_KNOWN}`,
  ]) {
    isNotFound(t, await get(origin + path), path)
  }
  for (const path of ['/token', '/register', '/authorize']) isNotFound(t, await get(origin + path), path)
})

t.test('where there is no OpenID document, the answer is JSON that any origin may read', async (t) => {
  const root = await startTestPostern(t, {}, { bare: true })
  const { origin } = await startBelowPath(t)
  for (const address of [
    `${root.issuer}/.well-known/openid-configuration`,
    `${root.issuer}${WELL_KNOWN}/mcp`,
    `${root.issuer}/.well-known/oauth-protected-resource`,
    `${origin}/.well-known/openid-configuration`,
    `${origin}/.well-known/openid-configuration/auth`,
    `${origin}/auth/.well-known/openid-configuration`,
  ]) {
    for (const headers of [ORIGIN, { ...ORIGIN, accept: 'text/html' }]) {
      const answer = await get(address, headers)
      isNotFound(t, answer, address)
      t.equal(answer.headers.get('access-control-allow-origin'), '*', address)
    }
  }
})

t.test('pages of any origin may call what clients call, without cookies (Fetch §3.2)', async (t) => {
  const { origin } = await startBelowPath(t)
  const paths = [
    `${WELL_KNOWN}/auth`,
    `/auth${WELL_KNOWN}`,
    '/auth/token',
    '/auth/register',
    '/auth/revoke',
    '/auth/par',
  ]
  for (const path of [...paths, '/auth/.well-known/openid-configuration', '/.well-known/openid-configuration/auth']) {
    const preflight = await fetch(origin + path, {
      method: 'OPTIONS',
      headers: {
        ...ORIGIN,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization, content-type, mcp-protocol-version',
      },
    })
    t.equal(preflight.status, 204, path)
    t.equal(preflight.headers.get('access-control-allow-origin'), '*')
    t.equal(
      preflight.headers.get('access-control-allow-headers'),
      'authorization, content-type, mcp-protocol-version, dpop',
    )
    t.match(preflight.headers.get('access-control-allow-methods'), /POST/)
    t.equal(preflight.headers.get('access-control-allow-credentials'), null)
  }
  for (const path of paths) {
    const method = path.includes('.well-known') ? 'GET' : 'POST'
    const response = await fetch(origin + path, { method, headers: ORIGIN })
    t.equal(response.headers.get('access-control-allow-origin'), '*', `${path} answered ${response.status}`)
    t.equal(response.headers.get('access-control-allow-credentials'), null)
  }
})

t.test('a page that sends a body of the wrong kind can read why', async (t) => {
  const { postern } = await startBelowPath(t)
  for (const path of ['/token', '/revoke', '/par', '/register']) {
    const response = await fetch(postern.issuer + path, {
      method: 'POST',
      headers: { ...ORIGIN, 'content-type': 'application/xml' },
      body: '<x/>',
    })
    t.equal(response.status, 415, path)
    t.equal(response.headers.get('access-control-allow-origin'), '*', path)
  }
})

t.test('pages, introspection and what devices call belong to no other origin', async (t) => {
  const { postern } = await startBelowPath(t)
  for (const path of [
    '/authorize',
    '/login',
    '/consent',
    '/account',
    '/introspect',
    '/device_authorization',
    '/health/live',
  ]) {
    for (const method of ['GET', 'POST', 'OPTIONS']) {
      const response = await fetch(postern.issuer + path, { method, headers: ORIGIN, redirect: 'manual' })
      t.equal(response.headers.get('access-control-allow-origin'), null, `${method} ${path}`)
    }
  }
})

t.test('scopes_supported follows the resource servers within five seconds', async (t) => {
  const postern = await startTestPostern(t, {}, { bare: true })
  const scopes = async () => (await get(postern.issuer + WELL_KNOWN)).body?.scopes_supported
  t.equal(await scopes(), undefined)
  await addResource(postern, 'https://a.example', [{ name: 'read', description: 'Read' }])
  await addResource(postern, 'https://b.example', [
    { name: 'read', description: 'Read' },
    { name: 'send', description: 'Send' },
  ])
  t.same(await until(scopes, 6), ['read', 'send'], 'each once')
})

t.test('without registration or iss metadata says so (RFC 9207 §3)', async (t) => {
  const postern = await startTestPostern(t, { registration: 'off', issParameter: false }, { bare: true })
  const { body } = await get(postern.issuer + WELL_KNOWN)
  t.notOk('registration_endpoint' in (body ?? {}))
  t.equal(body?.authorization_response_iss_parameter_supported, false)
})
