import t from 'tap'
import { challengeOf, isCodeChallenge } from '../../src/protocol/pkce.ts'

// RFC 7636 appendix B
const VERIFIER = 'dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk'
const CHALLENGE = 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM'

t.test('the S256 challenge of the verifier in RFC 7636 appendix B', async (t) => {
  t.equal(challengeOf(VERIFIER), CHALLENGE)
})

t.test('a verifier has 43 to 128 unreserved characters (RFC 7636 §4.1)', async (t) => {
  for (const good of ['a'.repeat(43), 'Z9-._~'.repeat(21), 'a'.repeat(128)]) t.type(challengeOf(good), 'string', good)
  for (const bad of [
    '',
    'a'.repeat(42),
    'a'.repeat(129),
    `${VERIFIER}=`,
    `${VERIFIER}+`,
    `${VERIFIER} `,
    `${VERIFIER}\n`,
  ]) {
    t.equal(challengeOf(bad), undefined, JSON.stringify(bad))
  }
  t.equal(challengeOf(`${VERIFIER.slice(1)}é`), undefined, 'no letter beyond ASCII')
})

t.test('a challenge is the base64url of a SHA-256, without padding (RFC 7636 §4.2)', async (t) => {
  t.ok(isCodeChallenge(CHALLENGE))
  for (const bad of [
    '',
    CHALLENGE.slice(1),
    `${CHALLENGE}A`,
    `${CHALLENGE}=`,
    `${CHALLENGE}\n`,
    `+${CHALLENGE.slice(1)}`,
  ]) {
    t.notOk(isCodeChallenge(bad), JSON.stringify(bad))
  }
})
