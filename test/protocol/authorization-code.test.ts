import t from 'tap'
import { type JudgedCode, judgeAuthorizationCode, type PresentedCode } from '../../src/protocol/authorization-code.ts'

const code: JudgedCode = {
  clientId: 'app',
  redirectUri: 'https://app.example/callback',
  codeChallenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM',
  dpopJkt: null,
  expired: false,
  redeemedSecondsAgo: undefined,
}
const presented: PresentedCode = {
  clientId: 'app',
  redirectUri: 'https://app.example/callback',
  codeChallenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM',
  dpopJkt: undefined,
}

t.test('a code that nobody issued is unknown', async (t) => {
  t.equal(judgeAuthorizationCode(undefined, presented), 'unknown')
})

t.test('client, redirect_uri and verifier are judged first, so that a wrong one burns nothing', async (t) => {
  const states: Partial<JudgedCode>[] = [
    {},
    { expired: true },
    { redeemedSecondsAgo: 3 },
    { redeemedSecondsAgo: 3600, expired: true },
  ]
  for (const state of states) {
    const judged = { ...code, ...state }
    const because = JSON.stringify(state)
    t.equal(judgeAuthorizationCode(judged, { ...presented, clientId: 'other' }), 'wrong-client', because)
    t.equal(
      judgeAuthorizationCode(judged, { ...presented, redirectUri: 'https://app.example/other' }),
      'wrong-redirect-uri',
      because,
    )
    t.equal(judgeAuthorizationCode(judged, { ...presented, codeChallenge: 'x'.repeat(43) }), 'wrong-verifier', because)
  }
})

t.test('a second redemption within ten seconds is a retry, later it is a replay (RFC 6749 §4.1.2)', async (t) => {
  t.equal(judgeAuthorizationCode({ ...code, redeemedSecondsAgo: 0 }, presented), 'redeemed-just-now')
  t.equal(judgeAuthorizationCode({ ...code, redeemedSecondsAgo: 10 }, presented), 'redeemed-just-now')
  t.equal(judgeAuthorizationCode({ ...code, redeemedSecondsAgo: 10.001 }, presented), 'replayed')
})

t.test('a replay is recognised although the code has expired since', async (t) => {
  t.equal(judgeAuthorizationCode({ ...code, redeemedSecondsAgo: 3600, expired: true }, presented), 'replayed')
})

t.test('redirect_uri may be left out, since PKCE binds the code (OAuth 2.1 §4.1.3)', async (t) => {
  const without = { ...presented, redirectUri: undefined }
  t.equal(judgeAuthorizationCode({ ...code, expired: true }, without), 'expired')
  t.equal(judgeAuthorizationCode({ ...code, redeemedSecondsAgo: 60 }, without), 'replayed')
})

t.test('redirect_uri is compared exactly at the token endpoint, also on loopback (RFC 6749 §4.1.3)', async (t) => {
  const native = { ...code, redirectUri: 'http://localhost:4711/callback' }
  t.equal(
    judgeAuthorizationCode(native, { ...presented, redirectUri: 'http://localhost:4712/callback' }),
    'wrong-redirect-uri',
  )
})

t.test('an expired code is expired, and a good one was refused for its user, client or resource', async (t) => {
  t.equal(judgeAuthorizationCode({ ...code, expired: true }, presented), 'expired')
  t.equal(judgeAuthorizationCode(code, presented), 'refused')
})

t.test(
  'a code that was asked for with a key needs that key, and a wrong one burns nothing (RFC 9449 §10)',
  async (t) => {
    for (const state of [{}, { expired: true }, { redeemedSecondsAgo: 3600 }]) {
      const judged = { ...code, ...state, dpopJkt: 'key' }
      t.equal(judgeAuthorizationCode(judged, presented), 'wrong-key')
      t.equal(judgeAuthorizationCode(judged, { ...presented, dpopJkt: 'another' }), 'wrong-key')
    }
    t.equal(judgeAuthorizationCode({ ...code, dpopJkt: 'key' }, { ...presented, dpopJkt: 'key' }), 'refused')
    t.equal(judgeAuthorizationCode(code, { ...presented, dpopJkt: 'key' }), 'refused', 'any key will do for others')
  },
)
