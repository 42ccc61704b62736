import t from 'tap'
import { introspectionResponse } from '../../src/protocol/introspection.ts'

t.test('a token that holds is described (RFC 7662 §2.2)', async (t) => {
  const token = {
    clientId: 'app',
    userId: '5a5a5a5a-0000-4000-8000-000000000000',
    username: 'alice',
    scope: 'read',
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
})

t.test('about a token that does not hold, nothing more is said (RFC 7662 §2.2)', async (t) => {
  t.same(introspectionResponse(undefined, 'https://auth.example', 'https://mcp.example.com/mcp'), { active: false })
})
