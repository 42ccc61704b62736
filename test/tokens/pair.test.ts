import t from 'tap'
import { currentPairKey, derivePair } from '../../src/tokens/pair.ts'
import { decodeCredential, minuteOf, orderedSecret } from '../../src/tokens/secret.ts'

t.test('a pair follows from lineage, generation and key, and from nothing less', async (t) => {
  const [lineage, key] = [orderedSecret(), orderedSecret()]
  key.writeUIntBE(1, 0, 3) // made in another minute than this
  const pair = derivePair(lineage, 1, key)
  t.same(derivePair(lineage, 1, key), pair)
  const others = [
    derivePair(orderedSecret(), 1, key),
    derivePair(lineage, 2, key),
    derivePair(lineage, 1, orderedSecret()),
  ]
  for (const other of others) {
    t.not(other.accessToken.text, pair.accessToken.text)
    t.notSame(other.refreshToken.secret, pair.refreshToken.secret)
  }
  const content = decodeCredential('accessToken', pair.accessToken.text) ?? Buffer.alloc(0)
  t.same(minuteOf(content), minuteOf(key))
  t.notSame(
    content.subarray(3, 19),
    pair.refreshToken.secret,
    'a resource server, which sees one half, knows nothing of the other',
  )
})

t.test('pairs are derived from another key each minute, so that each can be erased', async (t) => {
  const first = currentPairKey()
  t.equal(currentPairKey(), first)
  const startedAt = performance.now()
  for (const [seconds, isNew] of [
    [59, false],
    [61, true],
    [100, false],
    [122, true],
  ] as const) {
    const before = currentPairKey()
    t.intercept(performance, 'now', { value: () => startedAt + seconds * 1000 })
    const now = currentPairKey()
    t.equal(now.id !== before.id && !now.key.equals(before.key), isNew, `after ${seconds} s`)
  }
})
