import t from 'tap'
import {
  candidateKeys,
  claimedClientId,
  judgeAssertionClaims,
  type PublicJwk,
  secondsToRemember,
} from '../../src/protocol/client-assertion.ts'

const now = new Date('2026-11-20T10:00:00Z')
const instant = now.getTime() / 1000
const expected = { clientId: 'app', audiences: ['https://auth.example', 'https://auth.example/token'], now }
const claims = { iss: 'app', sub: 'app', aud: 'https://auth.example', jti: 'one', exp: instant + 60 }

t.test('an assertion is good for one client, one server and a short time (RFC 7523 §3)', async (t) => {
  t.equal(judgeAssertionClaims(claims, expected), 'good')
  t.equal(judgeAssertionClaims({ ...claims, iss: 'other' }, expected), 'wrong-client')
  t.equal(judgeAssertionClaims({ ...claims, sub: 'other' }, expected), 'wrong-client')
  t.equal(judgeAssertionClaims({ ...claims, aud: 'https://auth.example/' }, expected), 'wrong-audience')
  t.equal(judgeAssertionClaims({ ...claims, aud: ['a', 'https://auth.example/token'] }, expected), 'good')
  t.equal(judgeAssertionClaims({ ...claims, aud: [] }, expected), 'wrong-audience')
})

t.test('the clock of a client may be off by half a minute, either way', async (t) => {
  t.equal(judgeAssertionClaims({ ...claims, exp: instant - 29 }, expected), 'good')
  t.equal(judgeAssertionClaims({ ...claims, exp: instant - 30 }, expected), 'expired')
  t.equal(judgeAssertionClaims({ ...claims, exp: instant + 630 }, expected), 'good')
  t.equal(judgeAssertionClaims({ ...claims, exp: instant + 631 }, expected), 'valid-for-too-long')
  t.equal(judgeAssertionClaims({ ...claims, iat: instant + 30, nbf: instant + 30 }, expected), 'good')
  t.equal(judgeAssertionClaims({ ...claims, iat: instant + 31 }, expected), 'not-yet-valid')
  t.equal(judgeAssertionClaims({ ...claims, nbf: instant + 31 }, expected), 'not-yet-valid')
})

t.test('an assertion is remembered for as long as it could be accepted', async (t) => {
  for (const exp of [instant - 29.5, instant, instant + 60.5, instant + 630]) {
    const later = new Date(now.getTime() + secondsToRemember({ ...claims, exp }, now) * 1000)
    t.equal(judgeAssertionClaims({ ...claims, exp }, { ...expected, now: later }), 'expired', String(exp))
  }
})

const RSA: PublicJwk = { kty: 'RSA', kid: 'rsa', n: 'n', e: 'AQAB' }
const EC: PublicJwk = { kty: 'EC', kid: 'ec', crv: 'P-256', x: 'x', y: 'y' }
const EDWARDS: PublicJwk = { kty: 'OKP', kid: 'ed', crv: 'Ed25519', x: 'x' }
const ALL = [RSA, EC, EDWARDS]

t.test('the type of a key decides which algorithms it serves (RFC 8725 §3.1)', async (t) => {
  t.same(candidateKeys(ALL, { alg: 'RS256' }), [RSA])
  t.same(candidateKeys(ALL, { alg: 'PS256' }), [RSA])
  t.same(candidateKeys(ALL, { alg: 'ES256' }), [EC])
  t.same(candidateKeys(ALL, { alg: 'EdDSA' }), [EDWARDS])
  t.same(candidateKeys(ALL, { alg: 'Ed25519' }), [EDWARDS])
  t.same(candidateKeys([{ ...EC, crv: 'P-384' }], { alg: 'ES256' }), [])
})

t.test('a key may say what it is for, and which one it is (RFC 7517 §4)', async (t) => {
  const choose = (members: Partial<PublicJwk>, kid?: string) =>
    candidateKeys([{ ...RSA, ...members }], { alg: 'RS256', kid }).length === 1
  t.ok(choose({ alg: 'RS256', use: 'sig', key_ops: ['verify'] }, 'rsa'))
  t.notOk(choose({ alg: 'PS256' }))
  t.notOk(choose({ use: 'enc' }))
  t.notOk(choose({ key_ops: ['encrypt'] }))
  t.notOk(choose({}, 'another'))
  t.ok(choose({ kid: undefined }, 'another'), 'a key without a name may be meant')
  t.equal(candidateKeys([{ ...EDWARDS, alg: 'EdDSA' }], { alg: 'Ed25519' }).length, 1, 'two names of one algorithm')
})

t.test('the client is read from the assertion, which may be anything', async (t) => {
  const made = (payload: string) => `e30.${Buffer.from(payload).toString('base64url')}.c2ln`
  t.equal(claimedClientId(made('{"sub":"app"}')), 'app')
  for (const payload of ['{"sub":1}', '{"sub":""}', '{"iss":"app"}', '{"sub":"a\\u0000"}', 'null', '[]', '1', '{', ''])
    t.equal(claimedClientId(made(payload)), undefined, payload)
  for (const text of ['', 'a', 'a.b', 'a.b.c.d', '{}.{}.{}', `${made('{"sub":"app"}')} `])
    t.equal(claimedClientId(text), undefined, text)
  t.equal(claimedClientId(made(`{"sub":"app","x":"${'x'.repeat(5000)}"}`)), undefined, 'too long')
})
