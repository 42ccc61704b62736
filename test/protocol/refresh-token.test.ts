import { createHash, randomBytes } from 'node:crypto'
import t from 'tap'
import {
  decodeRefreshToken,
  encodeRefreshToken,
  type JudgedFamily,
  judgeRefreshToken,
  SUPERSEDED_KEPT,
} from '../../src/protocol/refresh-token.ts'
import { orderedSecret } from '../../src/tokens/secret.ts'

const hashOf = (generation: number) => createHash('sha256').update(`secret of generation ${generation}`).digest()
const presented = (generation: number) => ({ generation, secretHash: hashOf(generation) })
const forged = (generation: number) => ({ generation, secretHash: hashOf(-1) })

/** A family of the client `app` in the given generation; the windows of the newest superseded ones are open. */
function familyAt(generation: number, openWindows: number): JudgedFamily {
  const superseded = Array.from({ length: openWindows }, (_, age) => presented(generation - 1 - age))
  const unbound = { familyDpopJkt: null, dpopGeneration: 0 }
  const secretHash = hashOf(generation)
  return { clientId: 'app', ended: false, expired: false, generation, secretHash, ...unbound, superseded }
}

t.test('a refresh token keeps its three parts', async (t) => {
  for (const lineage of [orderedSecret(), randomBytes(32)]) {
    const token = { lineage, generation: 4_294_967_295, secret: randomBytes(16) }
    t.same(decodeRefreshToken(encodeRefreshToken(token)), token)
  }
})

t.test('bytes of another length are no refresh token', async (t) => {
  for (const length of [0, 51, 53, 54, 56, 256])
    t.equal(decodeRefreshToken(Buffer.alloc(length)), undefined, String(length))
})

t.test('a lineage that no family has is unknown', async (t) => {
  t.equal(judgeRefreshToken(undefined, presented(0), 'app'), 'unknown')
})

t.test('ownership is judged first: another client never ends the family, whatever it presents', async (t) => {
  for (const token of [presented(3), presented(2), presented(0), forged(3), forged(2), forged(9)]) {
    t.equal(judgeRefreshToken(familyAt(3, 1), token, 'other'), 'wrong-client', String(token.generation))
  }
})

t.test('a family that has ended or expired answers nothing more', async (t) => {
  for (const token of [presented(3), presented(2), presented(0), forged(3)]) {
    t.equal(judgeRefreshToken({ ...familyAt(3, 1), ended: true, expired: true }, token, 'app'), 'ended')
    t.equal(judgeRefreshToken({ ...familyAt(3, 1), expired: true }, token, 'app'), 'expired')
  }
})

t.test('the newest token is current, so that something else in the request kept it from rotating', async (t) => {
  t.equal(judgeRefreshToken(familyAt(3, 1), presented(3), 'app'), 'current')
})

t.test('a generation beyond the current is merely unknown', async (t) => {
  t.equal(judgeRefreshToken(familyAt(3, 1), presented(4), 'app'), 'unknown')
})

t.test('every generation whose window is open converges, several generations old too', async (t) => {
  for (const generation of [2, 1, 0]) {
    t.equal(judgeRefreshToken(familyAt(3, 3), presented(generation), 'app'), 'converge', String(generation))
  }
  t.equal(judgeRefreshToken(familyAt(9, SUPERSEDED_KEPT), presented(1), 'app'), 'converge')
})

t.test('a generation whose window has closed is a replay, whatever its secret (RFC 9700 §4.14.2)', async (t) => {
  t.equal(judgeRefreshToken(familyAt(3, 1), presented(1), 'app'), 'replayed')
  t.equal(judgeRefreshToken(familyAt(3, 0), presented(2), 'app'), 'replayed')
  t.equal(judgeRefreshToken(familyAt(3, 0), forged(2), 'app'), 'replayed')
  t.equal(judgeRefreshToken(familyAt(9, SUPERSEDED_KEPT), presented(0), 'app'), 'replayed', 'nine generations back')
})

t.test('a right generation with another secret is a forgery, not a retry', async (t) => {
  t.equal(judgeRefreshToken(familyAt(3, 1), forged(3), 'app'), 'forged')
  t.equal(judgeRefreshToken(familyAt(3, 1), forged(2), 'app'), 'forged')
})

const bound: JudgedFamily = { ...familyAt(3, 3), familyDpopJkt: 'key', dpopGeneration: 0 }

t.test('a bound token without its key is refused before all else, and ends nothing (RFC 9449 §5)', async (t) => {
  for (const token of [presented(3), presented(2), forged(3), forged(2)]) {
    t.equal(judgeRefreshToken(bound, token, 'app'), 'wrong-key')
    t.equal(judgeRefreshToken(bound, { ...token, dpopJkt: 'another' }, 'app'), 'wrong-key')
  }
  t.equal(judgeRefreshToken({ ...bound, superseded: [] }, presented(0), 'app'), 'wrong-key', 'a spent one, too')
  t.equal(judgeRefreshToken({ ...bound, ended: true }, presented(3), 'app'), 'wrong-key')
})

t.test('with its key a bound token is judged like any other', async (t) => {
  t.equal(judgeRefreshToken(bound, { ...presented(3), dpopJkt: 'key' }, 'app'), 'current')
  t.equal(judgeRefreshToken(bound, { ...presented(2), dpopJkt: 'key' }, 'app'), 'converge')
  t.equal(judgeRefreshToken({ ...bound, superseded: [] }, { ...presented(2), dpopJkt: 'key' }, 'app'), 'replayed')
})

t.test('whoever has bound a stolen token to a key of their own is found out by the token from before', async (t) => {
  const boundLater = { ...bound, dpopGeneration: 3 }
  t.equal(judgeRefreshToken(boundLater, presented(2), 'app'), 'replayed')
  t.equal(judgeRefreshToken(boundLater, { ...presented(2), dpopJkt: 'another' }, 'app'), 'replayed')
  t.equal(judgeRefreshToken(boundLater, { ...presented(2), dpopJkt: 'key' }, 'app'), 'converge', 'a retry')
  t.equal(judgeRefreshToken(boundLater, presented(3), 'app'), 'wrong-key')
})
