/** Every JSON answer passes the schemas of both official MCP SDKs; they refuse null members and empty URLs. */
import t from 'tap'
import { protectedResourceMetadata } from '../../src/protocol/metadata.ts'
import { obtainCode, obtainTokens, post, redeem, refresh } from '../support/flow.ts'
import { addClient, RESOURCE, startTestPostern } from '../support/postern.ts'
import { problemsOf } from '../support/schemas.ts'

t.test('metadata passes, with resources and without, with registration and without', async (t) => {
  for (const [overrides, options] of [
    [{}, {}],
    [{}, { bare: true }],
    [{ registration: 'off' }, {}],
    [{ issParameter: false }, {}],
  ] as const) {
    const postern = await startTestPostern(t, overrides, options)
    const response = await fetch(`${postern.issuer}/.well-known/oauth-authorization-server`)
    t.strictSame(await problemsOf('metadata', await response.json()), [])
  }
})

t.test('the protected resource metadata that Postern prints passes (RFC 9728 §2)', async (t) => {
  for (const [resource, name, scopes] of [
    [RESOURCE, 'Notes', ['read']],
    ['https://mcp.example.com', null, []],
  ] as const) {
    const { document } = protectedResourceMetadata(resource, name, 'https://auth.example.com', scopes)
    t.strictSame(await problemsOf('resource metadata', document), [])
  }
})

t.test('registration passes, whatever a client leaves empty (RFC 7591 §3.2.1)', async (t) => {
  const postern = await startTestPostern(t)
  const redirect_uris = ['https://app.example/callback']
  for (const request of [
    { redirect_uris },
    { redirect_uris, token_endpoint_auth_method: 'none' },
    { redirect_uris, client_name: '', client_uri: '', logo_uri: '', tos_uri: '', policy_uri: '', scope: '' },
    { redirect_uris, client_name: null, client_uri: null, contacts: null, scope: null, grant_types: null, jwks: null },
    { redirect_uris, contacts: [''], grant_types: [''], response_types: [], software_id: '' },
    { redirect_uris, client_uri: 'https://app.example', logo_uri: 'data:image/png,x', scope: 'read unknown' },
  ]) {
    const { status, body } = await register(postern.issuer, request)
    t.equal(status, 201)
    t.strictSame(await problemsOf('registration', body), [], JSON.stringify(request))
    t.strictSame(body.redirect_uris, redirect_uris)
    if ('client_secret' in body) t.equal(body.client_secret_expires_at, 0)
  }
})

t.test('token answers pass, with refresh tokens and without, with scopes and without (RFC 6749 §5.1)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  const { status, body } = await redeem(postern, client, await obtainCode(postern, client))
  t.equal(status, 200)
  t.strictSame(await problemsOf('tokens', body), [])
  const refreshed = await refresh(postern, client, String(body.refresh_token))
  t.strictSame(await problemsOf('tokens', refreshed.body), [])
  const once = await addClient(postern, {
    redirectUris: ['https://app.example/callback'],
    grantTypes: ['authorization_code'],
  })
  const tokens = await obtainTokens(postern, once)
  t.strictSame(await problemsOf('tokens', tokens), [])
  t.notOk('refresh_token' in tokens)
})

t.test('every error passes (RFC 6749 §5.2), whatever went wrong', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  const form = (path: string, fields: Record<string, string>) => () => post(postern, path, fields)
  const grant_type = 'refresh_token'
  for (const [name, expected, ask] of [
    ['no parameters', 401, form('/token', {})],
    ['an unknown client', 401, form('/token', { client_id: 'unknown', grant_type, refresh_token: 'x' })],
    ['an unknown grant', 400, form('/token', { client_id: client.client_id, grant_type: 'password' })],
    [
      'a token that does not hold',
      400,
      form('/token', { client_id: client.client_id, grant_type, refresh_token: 'x' }),
    ],
    ['no credentials at introspection', 401, form('/introspect', { token: 'x' })],
    ['no token at revocation', 400, form('/revoke', { client_id: client.client_id })],
    ['no redirect URI', 400, () => register(postern.issuer, {})],
    ['a forbidden redirect URI', 400, () => register(postern.issuer, { redirect_uris: ['javascript:alert(1)'] })],
    ['not JSON', 400, () => send('POST', '/register', '{', 'application/json')],
    ['another media type', 415, () => send('POST', '/token', '{}', 'application/json')],
    ['too large a body', 413, () => send('POST', '/token', 'a='.padEnd(200_000, 'a'))],
    ['another method', 405, () => send('GET', '/token')],
    ['no such address', 404, () => send('GET', '/nowhere')],
    ['no OpenID document', 404, () => send('GET', '/.well-known/openid-configuration')],
  ] as const) {
    const { status, body } = await ask()
    t.equal(status, expected, name)
    t.strictSame(await problemsOf('error', body), [], name)
  }

  async function send(method: string, path: string, body?: string, type = 'application/x-www-form-urlencoded') {
    const response = await fetch(postern.issuer + path, {
      method,
      ...(body === undefined ? {} : { body, headers: { 'content-type': type } }),
    })
    t.match(response.headers.get('content-type'), /^application\/json/)
    return { status: response.status, body: (await response.json()) as unknown }
  }
})

async function register(issuer: string, request: object) {
  const response = await fetch(`${issuer}/register`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(request),
  })
  return { status: response.status, body: (await response.json()) as Record<string, unknown> }
}
