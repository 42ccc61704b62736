import fc from 'fast-check'
import t, { type Test } from 'tap'
import { matchesRedirectUri, redirectPlace, redirectUriProblem } from '../../src/protocol/redirect-uri.ts'

function accepts(t: Test, ...uris: string[]): void {
  for (const uri of uris) t.equal(redirectUriProblem(uri, ['cursor']), undefined, uri)
}

function refuses(t: Test, ...uris: string[]): void {
  for (const uri of uris) t.type(redirectUriProblem(uri, ['cursor']), 'string', JSON.stringify(uri))
}

t.test('https may be registered for any host (RFC 6749 §3.1.2)', async (t) => {
  accepts(
    t,
    'https://claude.ai/api/mcp/auth_callback',
    'https://app.example',
    'https://app.example:8443/callback?tenant=a&next=%2Fb',
    'HTTPS://app.example/callback',
    'https://xn--bcher-kva.example/callback',
    'https://192.0.2.1/callback',
    'https://[2001:db8::1]/callback',
  )
})

t.test('http may be registered for loopback alone (RFC 8252 §7.3)', async (t) => {
  accepts(
    t,
    'http://127.0.0.1/',
    'http://127.0.0.1:33418/',
    'http://[::1]:6276/oauth/callback',
    'http://localhost:8787/callback',
    'http://localhost/callback',
    'HTTP://LOCALHOST:1/callback',
  )
  refuses(
    t,
    'http://app.example/callback',
    'http://127.0.0.1.evil.example/callback',
    'http://localhost.evil.example/callback',
    'http://127.0.0.2/callback',
    'http://0.0.0.0/callback',
    'http://192.168.0.10/callback',
    'http://[::ffff:127.0.0.1]/callback',
  )
})

t.test('a private-use scheme is a reverse-DNS name, or one that the operator allows (RFC 8252 §7.1)', async (t) => {
  accepts(
    t,
    'com.example.app:/oauth2redirect',
    'com.example.app://callback',
    'cursor://anysphere.cursor-mcp/oauth/callback',
  )
  accepts(t, 'CURSOR://anysphere.cursor-mcp/oauth/callback')
  refuses(t, 'vscode://callback', 'myapp:/callback', 'cursors://callback', 'x-cursor://callback')
})

t.test('a scheme that runs or shows content in the browser is never allowed, however it is written', async (t) => {
  const schemes = [
    'javascript',
    'data',
    'file',
    'vbscript',
    'blob',
    'about',
    'view-source',
    'filesystem',
    'ftp',
    'ws',
    'wss',
  ]
  for (const scheme of schemes) {
    const spellings = [scheme, scheme.toUpperCase(), scheme.charAt(0).toUpperCase() + scheme.slice(1)]
    for (const spelling of spellings) {
      for (const rest of ['//app.example/', 'x', 'alert(1)//app.example', '/app.example']) {
        const problem = redirectUriProblem(`${spelling}:${rest}`, [scheme, 'cursor'])
        t.type(problem, 'string', `${spelling}:${rest}, though the operator allows it`)
      }
    }
  }
  refuses(
    t,
    ' javascript:alert(1)',
    '\tjavascript:alert(1)',
    '\u0001javascript:alert(1)',
    'java\nscript:alert(1)',
    'java\tscript:alert(1)',
    'javascript :alert(1)',
    'javascript&colon;alert(1)',
    'javascript%3Aalert(1)',
    'jav\u0430script:alert(1)',
  )
})

t.test('what parsers disagree on is not a redirect URI', async (t) => {
  refuses(
    t,
    '',
    'https',
    'https:',
    'https:evil',
    'https:/evil.example',
    'https:///x',
    'https:////evil.example/x',
    'https://',
    'https://?x',
    'https://:443/',
    '//app.example/callback',
    '/callback',
    'app.example/callback',
    'https:\\\\app.example\\callback',
    'https://app.example\\@evil.example/',
    'https://app.example/call back',
    ' https://app.example/callback',
    'https://app.example/callback ',
    'https://app.example/callback\n',
    'https://app.example/\tcallback',
    'https://app.example/callb\u0000ack',
    'https://app.example/<script>',
    'https://app.example/"onclick=',
    'https://app.example/`x`',
    'https://app.example/{id}',
    'https://app.example/a|b',
    'https://app.example/a^b',
    'https://bücher.example/callback',
    'https://app.example/ünicode',
    'https://аpp.example/callback',
    'https://app.example。evil.example/',
    'https://app.exa\u202emple/',
    'https://app example/',
    'http://[::1/callback',
  )
})

t.test('a port above 65,535 is not a redirect URI', async (t) => {
  accepts(t, 'https://app.example:65535/callback', 'http://localhost:65535/callback')
  refuses(t, 'https://app.example:65536/callback', 'http://localhost:99999/callback', 'http://127.0.0.1:-1/')
})

t.test('a fragment is refused, also an empty one (RFC 6749 §3.1.2)', async (t) => {
  refuses(
    t,
    'https://app.example/callback#',
    'https://app.example/callback#x',
    'http://localhost/callback#x',
    'com.example.app:/x#y',
  )
})

t.test('userinfo is refused: it makes one host look like another (RFC 9700 §4.1)', async (t) => {
  refuses(t, 'https://user@app.example/', 'https://user:password@app.example/', 'https://:password@app.example/')
  refuses(
    t,
    'http://localhost@evil.example/',
    'http://localhost:80@evil.example/',
    'https://claude.ai%2F@evil.example/',
  )
})

t.test('a URI of more than 1,024 characters is refused', async (t) => {
  accepts(t, `https://app.example/${'a'.repeat(1024 - 20)}`)
  refuses(t, `https://app.example/${'a'.repeat(2049 - 20)}`)
})

t.test('redirect URIs are compared as strings (RFC 9700 §4.1.3)', async (t) => {
  const registered = 'https://app.example/callback?a=1'
  t.ok(matchesRedirectUri(registered, registered))
  for (const other of [
    'https://app.example/callback',
    'https://app.example/callback?a=1&b=2',
    'https://app.example/callback/?a=1',
    'https://app.example:443/callback?a=1',
    'https://APP.example/callback?a=1',
    'https://app.example/x/../callback?a=1',
    'https://app.example/%63allback?a=1',
    'http://app.example/callback?a=1',
    'https://app.example/callback?a=1#',
    'https://app.example.evil.example/callback?a=1',
    'https://evil.example/https://app.example/callback?a=1',
  ]) {
    t.notOk(matchesRedirectUri(registered, other), other)
  }
  t.notOk(matchesRedirectUri('com.example.app:/callback', 'com.example.app:/other'))
  t.notOk(matchesRedirectUri('https://*.app.example/', 'https://evil.app.example/'), 'a star is a star')
  t.notOk(
    matchesRedirectUri('https://app.example:1/callback', 'https://app.example:2/callback'),
    'no port is free on https',
  )
})

t.test('on loopback any port is right, for both addresses and the name (RFC 8252 §7.3)', async (t) => {
  for (const host of ['127.0.0.1', '[::1]', 'localhost']) {
    for (const registered of [`http://${host}/callback`, `http://${host}:8787/callback`]) {
      for (const port of ['', ':1', ':80', ':8787', ':65535']) {
        t.ok(matchesRedirectUri(registered, `http://${host}${port}/callback`), `${registered} with ${port}`)
      }
    }
  }
  t.ok(matchesRedirectUri('http://127.0.0.1/', 'http://127.0.0.1:33418/'), 'VS Code')
  t.ok(matchesRedirectUri('http://localhost', 'http://localhost:5000'), 'without a path')
  t.ok(matchesRedirectUri('http://localhost?x=1', 'http://localhost:5000?x=1'), 'with a query')
})

t.test('on loopback everything but the port is exact', async (t) => {
  const registered = 'http://localhost:8787/callback?a=1'
  for (const other of [
    'http://localhost:8787/callback',
    'http://localhost:8787/callback/?a=1',
    'http://localhost:8787/Callback?a=1',
    'http://localhost:8787/callback?a=1&b=2',
    'http://localhost:8787/x/../callback?a=1',
    'http://localhost:8787/callback?a=1#x',
    'http://127.0.0.1:8787/callback?a=1',
    'http://[::1]:8787/callback?a=1',
    'https://localhost:8787/callback?a=1',
    'http://LOCALHOST:8787/callback?a=1',
    'http://localhost.:8787/callback?a=1',
    'http://localhost:/callback?a=1',
    'http://localhost:65536/callback?a=1',
    'http://localhost:123456/callback?a=1',
    'http://localhost:0008787/callback?a=1',
    'http://localhost:87a7/callback?a=1',
    'http://localhost:8787@evil.example/callback?a=1',
    'http://localhost@evil.example/callback?a=1',
    'http://localhost:8787\\@evil.example/callback?a=1',
    'http://localhost.evil.example/callback?a=1',
    'http://localhost:8787/callback?a=1\n',
    ' http://localhost:8787/callback?a=1',
  ]) {
    t.notOk(matchesRedirectUri(registered, other), JSON.stringify(other))
  }
})

t.test('whatever matches a registered loopback URI goes to the same host and path', async (t) => {
  const registered = 'http://localhost/callback'
  const tails = fc.string({ unit: fc.constantFrom(...'0123456789:/@\\?#.%[] \n\tcalbkevixmp') })
  fc.assert(
    fc.property(tails, (tail) => {
      const requested = `http://localhost${tail}`
      if (!matchesRedirectUri(registered, requested)) return true
      const url = new URL(requested)
      return url.hostname === 'localhost' && url.pathname === '/callback' && url.search === '' && url.username === ''
    }),
  )
  t.pass()
})

t.test('a redirect URI is described so that a person can judge it', async (t) => {
  t.same(redirectPlace('https://app.example:8443/callback'), { kind: 'web', name: 'app.example:8443' })
  t.same(redirectPlace('http://localhost:8787/callback'), { kind: 'loopback', name: 'localhost:8787' })
  t.same(redirectPlace('http://[::1]/callback'), { kind: 'loopback', name: '[::1]' })
  t.same(redirectPlace('https://localhost/callback'), { kind: 'web', name: 'localhost' })
  t.same(redirectPlace('cursor://anysphere.cursor-mcp/callback'), { kind: 'application', name: 'cursor' })
})
