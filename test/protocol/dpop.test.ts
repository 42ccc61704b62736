import { createHash } from 'node:crypto'
import t from 'tap'
import { type DpopClaims, dpopNonces, isThumbprint, judgeDpopClaims } from '../../src/protocol/dpop.ts'

const now = new Date('2026-11-05T12:00:00Z')
const iat = now.getTime() / 1000
const expected = { method: 'POST', uri: 'https://auth.example/tenant/token', now, nonces: ['new', 'old'] }
const claims: DpopClaims = { jti: 'x', htm: 'POST', htu: 'https://auth.example/tenant/token', iat, nonce: 'new' }

function judge(changes: Partial<DpopClaims>) {
  return judgeDpopClaims({ ...claims, ...changes }, expected)
}

t.test('a proof for this request passes, with the current nonce or the one before', async (t) => {
  t.equal(judge({}), 'good')
  t.equal(judge({ nonce: 'old' }), 'good')
})

t.test('htm is the method, to the letter (RFC 9449 §4.3)', async (t) => {
  for (const htm of ['GET', 'post', 'POST ', '']) t.equal(judge({ htm }), 'wrong-method', htm)
})

t.test('htu is compared without query and fragment, and normalised (RFC 9449 §4.3)', async (t) => {
  for (const htu of [
    'HTTPS://AUTH.EXAMPLE/tenant/token',
    'https://auth.example:443/tenant/token',
    'https://auth.example/tenant/token?grant_type=refresh_token#x',
    'https://auth.example/tenant/./x/../token',
    'https://auth.example/%74enant/token',
  ]) {
    t.equal(judge({ htu }), 'good', htu)
  }
})

t.test('another address, or none, is refused', async (t) => {
  for (const htu of [
    'https://auth.example/token',
    'https://auth.example/tenant/token/',
    'https://auth.example/tenant/Token',
    'https://auth.example/tenant%2Ftoken',
    'http://auth.example/tenant/token',
    'https://auth.example:8443/tenant/token',
    'https://auth.example.evil.example/tenant/token',
    'https://auth.example@evil.example/tenant/token',
    'https://user@auth.example/tenant/token',
    '/tenant/token',
    'urn:x',
    '',
  ]) {
    t.equal(judge({ htu }), 'wrong-uri', htu)
  }
})

t.test('iat is within five minutes, since clocks differ (RFC 9449 §11.1)', async (t) => {
  for (const seconds of [-300, 0, 0.5, 300]) t.equal(judge({ iat: iat + seconds }), 'good', String(seconds))
  t.equal(judge({ iat: iat - 301 }), 'stale')
  t.equal(judge({ iat: 0 }), 'stale')
  t.equal(judge({ iat: iat + 301 }), 'from-the-future')
  t.equal(judge({ iat: now.getTime() }), 'from-the-future', 'milliseconds')
})

t.test('a nonce is asked for only when all else is right (RFC 9449 §8)', async (t) => {
  t.equal(judge({ nonce: undefined }), 'nonce-missing')
  for (const nonce of ['', 'older', 'new,old']) t.equal(judge({ nonce }), 'nonce-wrong', nonce)
  t.equal(judge({ nonce: undefined, htm: 'GET' }), 'wrong-method')
})

t.test('a nonce is new for two minutes and accepted for two more', async (t) => {
  const secret = createHash('sha256').update('secret').digest()
  const later = (seconds: number) => dpopNonces(secret, new Date(now.getTime() + seconds * 1000))
  const [current, previous] = dpopNonces(secret, now)
  t.not(current, previous)
  t.match(current, /^[\w-]{43}$/)
  t.same(later(119), [current, previous])
  t.equal(later(120)[1], current)
  t.equal(later(239)[1], current)
  t.notOk(later(240).includes(current))
  t.notOk(dpopNonces(Buffer.alloc(32), now).includes(current), 'it follows from the secret')
})

t.test('a thumbprint is the base64url of a SHA-256 (RFC 7638)', async (t) => {
  t.ok(isThumbprint('NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs'))
  for (const text of [
    '',
    'x',
    'NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs=',
    'NzbLsXh8uDCcd+6MNwXF4W/7noWXFZAfHkxZsRGC9Xs',
  ]) {
    t.notOk(isThumbprint(text), text)
  }
})
