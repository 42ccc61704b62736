import t from 'tap'
import { hashedAccessToken, issueAccessToken } from '../../src/tokens/access-token.ts'
import { hashSecret, isId, orderedHash, orderedId, orderedSecret } from '../../src/tokens/secret.ts'
import { until } from '../support/until.ts'

t.test(
  'identifiers of rows that come by the million follow one another, and none comes twice (RFC 9562 §5.8)',
  async (t) => {
    const before = orderedId()
    const place = (id: string) => id.slice(0, 13)
    await until(() => place(orderedId()) > place(before))
    const ids = Array.from({ length: 10_000 }, orderedId)
    t.equal(new Set(ids).size, ids.length)
    t.ok(ids.every((id) => isId(id) && /^.{14}8.{4}[89ab]/.test(id)))
    t.ok(
      ids.every((id) => id > before),
      'what came before stands before them',
    )
    const places = new Set(ids.map(place))
    t.ok(places.size < 100, 'those of one moment stand beside each other')
  },
)

t.test('the keys of one minute stand beside each other, and after those of the minutes before', async (t) => {
  let minute = 30_000_000
  const clock = t.intercept(Date, 'now', { value: () => minute * 60_000 })
  const first = Array.from({ length: 100 }, () => issueAccessToken().hash)
  minute += 1
  const second = Array.from({ length: 100 }, () => issueAccessToken().hash)
  clock.restore()
  t.equal(new Set(first.map((hash) => hash.subarray(0, 3).toString('hex'))).size, 1)
  t.ok(
    second.every((one) => first.every((other) => Buffer.compare(one, other) > 0)),
    'an index gets them at its end',
  )
})

t.test(
  'of the hash a secret can bring no more than three bytes, or a dump of the database would be tokens',
  async (t) => {
    const stored = issueAccessToken()
    for (const minuteBytes of [0, 1, 2, 4, 28, 32]) {
      const { text, hash } = hashedAccessToken(Buffer.concat([stored.hash.subarray(0, minuteBytes), Buffer.alloc(32)]))
      t.same(hash, hashSecret(text), `${minuteBytes} bytes before`)
    }
    const secret = orderedSecret()
    t.same(orderedHash(secret).subarray(3), hashSecret(secret).subarray(3), 'the rest is SHA-256')
  },
)
