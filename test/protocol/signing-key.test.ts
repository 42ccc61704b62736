import t from 'tap'
import { accessTokenClaims, chooseSigningKey } from '../../src/protocol/signing-key.ts'

t.test('the newest key whose time has come signs', async (t) => {
  const keys = [
    { kid: 'old', signsFromSeconds: 100, canSign: true },
    { kid: 'current', signsFromSeconds: 200, canSign: true },
    { kid: 'next', signsFromSeconds: 300, canSign: true },
  ]
  t.equal(chooseSigningKey(keys, 199)?.kid, 'old')
  t.equal(chooseSigningKey(keys, 200)?.kid, 'current')
  t.equal(chooseSigningKey(keys, 299)?.kid, 'current')
  t.equal(chooseSigningKey(keys, 300)?.kid, 'next')
})

t.test('a key that was made within this second signs, since instants of tokens are whole seconds', async (t) => {
  const keys = [{ kid: 'first', signsFromSeconds: 100.7, canSign: true }]
  t.equal(chooseSigningKey(keys, 100)?.kid, 'first')
})

t.test('a key whose private part was erased signs nothing', async (t) => {
  const keys = [
    { kid: 'erased', signsFromSeconds: 100, canSign: false },
    { kid: 'current', signsFromSeconds: 200, canSign: true },
  ]
  t.equal(chooseSigningKey(keys, 150)?.kid, 'current')
  t.equal(chooseSigningKey([], 150), undefined)
})

t.test(
  'an access token has the claims of RFC 9068 §2.2; a client that acts for itself is its own subject',
  async (t) => {
    const token = {
      clientId: 'app',
      reference: 'stored-under',
      userId: '5a5a5a5a-0000-4000-8000-000000000000',
      resourceUri: 'https://mcp.example.com/mcp',
      scope: 'read write',
      issuedAtSeconds: 1000,
      expiresAtSeconds: 4600,
      dpopJkt: null,
    }
    const claims = {
      iss: 'https://auth.example',
      exp: 4600,
      aud: 'https://mcp.example.com/mcp',
      sub: token.userId,
      client_id: 'app',
      iat: 1000,
      jti: 'stored-under',
      scope: 'read write',
    }
    t.same(accessTokenClaims('https://auth.example', token), claims)
    t.same(accessTokenClaims('https://auth.example', { ...token, userId: null }), { ...claims, sub: 'app' })
    t.same(accessTokenClaims('https://auth.example', { ...token, dpopJkt: 'thumbprint' }), {
      ...claims,
      cnf: { jkt: 'thumbprint' },
    })
  },
)
