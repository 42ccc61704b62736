import t from 'tap'
import { freePort, startTestPostern } from '../support/postern.ts'

t.test('/jwks publishes the public keys, and says how long they may be cached (RFC 7517 §5)', async (t) => {
  for (const algorithm of ['ES256', 'EdDSA', 'RS256'] as const) {
    const { issuer } = await startTestPostern(t, { signingAlgorithm: algorithm }, { bare: true })
    const response = await fetch(`${issuer}/jwks`, { headers: { origin: 'https://app.example' } })
    t.equal(response.status, 200)
    t.match(response.headers.get('content-type'), /^application\/json/)
    t.equal(response.headers.get('cache-control'), 'public, max-age=300')
    t.equal(response.headers.get('access-control-allow-origin'), '*', 'pages may read it, as they may discovery')
    const { keys } = (await response.json()) as { keys: Record<string, unknown>[] }
    t.equal(keys.length, 1)
    t.match(keys[0], { kid: /^[\w-]{43}$/, alg: algorithm, use: 'sig' })
    for (const member of ['d', 'p', 'q', 'dp', 'dq', 'qi', 'k', 'oth']) t.notOk(member in (keys[0] ?? {}), member)
  }
})

t.test('metadata names /jwks and the algorithms, below the issuer’s path (RFC 8414 §2, RFC 9701 §7)', async (t) => {
  const port = await freePort()
  const issuer = `http://localhost:${port}/auth`
  const postern = await startTestPostern(t, { port, issuer }, { bare: true })
  const document = await fetch(`${issuer}/.well-known/oauth-authorization-server`)
  const metadata = (await document.json()) as Record<string, unknown>
  t.match(metadata, { jwks_uri: `${issuer}/jwks`, introspection_signing_alg_values_supported: ['ES256'] })
  t.equal((await fetch(String(metadata.jwks_uri))).status, 200)
  const preflight = await fetch(`${issuer}/jwks`, { method: 'OPTIONS' })
  t.equal(preflight.status, 204)
  t.equal(preflight.headers.get('access-control-allow-origin'), '*')
  for (const name of ['id_token_signing_alg_values_supported', 'subject_types_supported', 'userinfo_endpoint']) {
    t.notOk(name in metadata, `${name}: a partial OpenID provider breaks clients`)
  }
  const openid = await fetch(`${postern.issuer}/.well-known/openid-configuration`)
  t.equal(openid.status, 404)
})
