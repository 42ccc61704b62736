import fc from 'fast-check'
import t from 'tap'
import {
  proveRedirectTarget,
  type RedirectTarget,
  readAuthorizationRequest,
  responseUri,
} from '../../src/protocol/authorization-request.ts'

const CHALLENGE = 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM' // RFC 7636 appendix B
const CALLBACK = 'https://app.example/callback'
const ISSUER = 'https://auth.example'

const target = targetOf(CALLBACK)

function targetOf(redirectUri: string, state?: string): RedirectTarget {
  const parameters = new Map([
    ['redirect_uri', redirectUri],
    ...(state === undefined ? [] : [['state', state] as const]),
  ])
  return proveRedirectTarget([redirectUri], parameters)
}

/** Reads a good request with some parameters changed, or left out when `undefined`. */
function read(changes: Record<string, string | undefined> = {}) {
  const all = { response_type: 'code', code_challenge: CHALLENGE, code_challenge_method: 'S256', ...changes }
  const given = Object.entries(all).filter((pair): pair is [string, string] => pair[1] !== undefined)
  return readAuthorizationRequest(target, new Map(given))
}

t.test('a registered redirect_uri is the target, with the state as it came (RFC 6749 §3.1.2.3)', async (t) => {
  const parameters = new Map([
    ['redirect_uri', CALLBACK],
    ['state', 'a+b/c=='],
  ])
  t.match(proveRedirectTarget(['https://other.example/', CALLBACK], parameters), {
    redirectUri: CALLBACK,
    state: 'a+b/c==',
  })
})

t.test('a redirect_uri that is not registered is no target', async (t) => {
  for (const requested of [`${CALLBACK}/`, `${CALLBACK}?x=1`, 'https://evil.example/', 'javascript:alert(1)']) {
    t.throws(() => proveRedirectTarget([CALLBACK], new Map([['redirect_uri', requested]])), {
      code: 'invalid_request',
      reason: 'redirect_uri_mismatch',
    })
  }
  t.throws(() => proveRedirectTarget([], new Map([['redirect_uri', CALLBACK]])), {
    code: 'invalid_request',
    reason: 'redirect_uri_mismatch',
  })
})

t.test('the port of a loopback target is the requested one (RFC 8252 §7.3)', async (t) => {
  const parameters = new Map([['redirect_uri', 'http://localhost:4711/callback']])
  t.equal(proveRedirectTarget(['http://localhost/callback'], parameters).redirectUri, 'http://localhost:4711/callback')
})

t.test('redirect_uri may be left out when exactly one is registered (RFC 6749 §3.1.2.3)', async (t) => {
  t.equal(proveRedirectTarget([CALLBACK], new Map()).redirectUri, CALLBACK)
  for (const registered of [[], [CALLBACK, 'https://other.example/']]) {
    t.throws(() => proveRedirectTarget(registered, new Map()), {
      code: 'invalid_request',
      reason: 'redirect_uri_missing',
    })
  }
})

t.test('a request as clients send it is read', async (t) => {
  const request = read({
    scope: 'read write',
    resource: 'https://mcp.example.com/mcp',
    prompt: 'login consent',
    nonce: 'x',
  })
  t.equal(request.target, target)
  t.equal(request.codeChallenge, CHALLENGE)
  t.same(request.requestedScope, ['read', 'write'])
  t.equal(request.requestedResource, 'https://mcp.example.com/mcp')
  t.same([...request.prompt], ['login', 'consent'])
})

t.test('what is left out is absent, and an absent method counts as S256', async (t) => {
  const request = read({ code_challenge_method: undefined })
  t.equal(request.requestedScope, undefined)
  t.equal(request.requestedResource, undefined)
  t.equal(request.prompt.size, 0)
})

t.test('response_type is code, and nothing else (OAuth 2.1 §4.1.1)', async (t) => {
  t.throws(() => read({ response_type: undefined }), { code: 'invalid_request' })
  for (const response_type of ['token', 'id_token', 'code token', 'none', 'CODE']) {
    t.throws(() => read({ response_type }), { code: 'unsupported_response_type' }, response_type)
  }
})

t.test('PKCE with S256 is demanded of every client (OAuth 2.1 §4.1.1)', async (t) => {
  t.throws(() => read({ code_challenge: undefined }), { code: 'invalid_request' })
  t.throws(() => read({ code_challenge: undefined, code_challenge_method: undefined }), { code: 'invalid_request' })
  t.throws(() => read({ code_challenge: 'too-short' }), { code: 'invalid_request' })
  for (const code_challenge_method of ['plain', 's256', 'S512']) {
    t.throws(() => read({ code_challenge_method }), { code: 'invalid_request' }, code_challenge_method)
  }
})

t.test('what is not supported is refused, not ignored: response modes and request objects', async (t) => {
  t.ok(read({ response_mode: 'query' }))
  t.throws(() => read({ response_mode: 'fragment' }), { code: 'invalid_request' })
  t.throws(() => read({ response_mode: 'form_post' }), { code: 'invalid_request' })
  t.throws(() => read({ request: 'eyJ' }), { code: 'invalid_request' })
  t.throws(() => read({ request_uri: 'urn:ietf:params:oauth:request_uri:x' }), { code: 'invalid_request' })
})

t.test('prompt=none stands alone (OpenID Connect Core §3.1.2.1)', async (t) => {
  t.same([...read({ prompt: 'none' }).prompt], ['none'])
  t.throws(() => read({ prompt: 'none login' }), { code: 'invalid_request' })
})

t.test('a scope that is no list of names is invalid_scope', async (t) => {
  t.throws(() => read({ scope: 'a"b' }), { code: 'invalid_scope' })
})

t.test('a response keeps the redirect URI’s own query (RFC 6749 §3.1.2)', async (t) => {
  const to = (uri: string) => responseUri(targetOf(uri), { code: 'c' }, undefined)
  t.equal(to('https://app.example/callback'), 'https://app.example/callback?code=c')
  t.equal(to('https://app.example/callback?tenant=a%2Fb'), 'https://app.example/callback?tenant=a%2Fb&code=c')
  t.equal(to('https://app.example/callback?'), 'https://app.example/callback?code=c')
  t.equal(to('https://app.example/callback?a=1&'), 'https://app.example/callback?a=1&code=c')
  t.equal(to('https://app.example'), 'https://app.example?code=c')
  t.equal(to('com.example.app:/callback'), 'com.example.app:/callback?code=c')
})

t.test('a response has one state and one iss, or none (RFC 6749 §4.1.2, RFC 9207 §2)', async (t) => {
  const uri = new URL(responseUri(targetOf(CALLBACK, 'xyz'), { code: 'c' }, ISSUER))
  t.same(
    [...uri.searchParams],
    [
      ['code', 'c'],
      ['state', 'xyz'],
      ['iss', ISSUER],
    ],
  )
  t.equal(responseUri(target, { error: 'access_denied' }, undefined), `${CALLBACK}?error=access_denied`)
})

t.test('spaces become %20, since some clients decode with decodeURIComponent alone', async (t) => {
  const uri = responseUri(targetOf(CALLBACK, 'a b'), { error_description: 'not allowed' }, undefined)
  t.equal(uri, `${CALLBACK}?error_description=not%20allowed&state=a%20b`)
})

t.test('any state comes back as it was, for both ways of decoding (RFC 6749 §4.1.2)', async (t) => {
  const comesBack = (state: string) => {
    const uri = responseUri(targetOf(CALLBACK, state), { code: 'c' }, ISSUER)
    const raw = /[?&]state=([^&]*)/.exec(uri)?.[1] ?? ''
    return new URL(uri).searchParams.get('state') === state && decodeURIComponent(raw) === state
  }
  for (const state of ['a+b/c==', '%2B', '100%', '&iss=https://evil.example', '#x', '日本語 🔑', 'a'.repeat(4096)]) {
    t.ok(comesBack(state), state.slice(0, 40))
  }
  fc.assert(fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), comesBack))
})
