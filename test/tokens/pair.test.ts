import { randomBytes } from 'node:crypto'
import t from 'tap'
import { derivePair, newSalt } from '../../src/tokens/pair.ts'

t.test('a pair follows from lineage, generation and salt, and from nothing less', async (t) => {
  const [lineage, salt] = [randomBytes(32), newSalt()]
  const pair = derivePair(lineage, 1, salt)
  t.same(derivePair(lineage, 1, salt), pair)
  const others = [derivePair(randomBytes(32), 1, salt), derivePair(lineage, 2, salt), derivePair(lineage, 1, newSalt())]
  for (const other of others) {
    t.not(other.accessToken, pair.accessToken)
    t.notSame(other.refreshToken.secret, pair.refreshToken.secret)
  }
  const content = Buffer.from(pair.accessToken.slice('postern_at_'.length), 'base64url')
  t.notSame(
    content.subarray(0, 16),
    pair.refreshToken.secret,
    'a resource server, which sees one half, knows nothing of the other',
  )
})
