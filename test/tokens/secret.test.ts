import t from 'tap'
import { isId, orderedId } from '../../src/tokens/secret.ts'
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
