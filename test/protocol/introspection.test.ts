import t from 'tap'
import { introspectionResponse, wantsSignedIntrospection } from '../../src/protocol/introspection.ts'

t.test('a token that holds is described (RFC 7662 §2.2)', async (t) => {
  const token = {
    clientId: 'app',
    userId: '5a5a5a5a-0000-4000-8000-000000000000',
    username: 'alice',
    scope: 'read',
    dpopJkt: null,
    issuedAtSeconds: 1000,
    expiresAtSeconds: 4600,
  }
  t.same(introspectionResponse(token, 'https://auth.example', 'https://mcp.example.com/mcp'), {
    active: true,
    iss: 'https://auth.example',
    sub: token.userId,
    username: 'alice',
    aud: 'https://mcp.example.com/mcp',
    client_id: 'app',
    scope: 'read',
    exp: 4600,
    iat: 1000,
    token_type: 'Bearer',
  })
  const bound = introspectionResponse({ ...token, dpopJkt: 'key' }, 'https://auth.example', 'https://mcp.example.com')
  t.match(bound, { active: true, token_type: 'DPoP', cnf: { jkt: 'key' } }, 'RFC 9449 §6.2')
})

t.test('about a token that does not hold, nothing more is said (RFC 7662 §2.2)', async (t) => {
  t.same(introspectionResponse(undefined, 'https://auth.example', 'https://mcp.example.com/mcp'), { active: false })
})

t.test('a signed answer is for those who ask for it by name (RFC 9701 §4)', async (t) => {
  const signed = 'application/token-introspection+jwt'
  const asking = [
    signed,
    'Application/Token-Introspection+JWT',
    `${signed}, application/json;q=0.5`,
    `text/html,${signed};q=1`,
  ]
  for (const accept of asking) t.equal(wantsSignedIntrospection(accept), true, accept)
  const others = [
    '*/*',
    'application/*',
    'application/json',
    `${signed};q=0`,
    `${signed};q=0.5, application/json`,
    `x${signed}`,
  ]
  for (const accept of [undefined, '', ...others]) t.equal(wantsSignedIntrospection(accept), false, accept ?? 'none')
})
