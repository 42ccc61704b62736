import t from 'tap'
import { freshSeconds } from '../../src/protocol/cache-control.ts'

const limits = { least: 10, most: 1000, fallback: 100 }
const date = 'Fri, 20 Nov 2026 10:00:00 GMT'

t.test('an answer says for how long it may be used again, within limits (RFC 9111 §4.2.1)', async (t) => {
  for (const [headers, seconds] of [
    [{}, 100],
    [{ 'cache-control': 'public' }, 100],
    [{ 'cache-control': 'Public, Max-Age=60' }, 60],
    [{ 'cache-control': 'max-age="60"' }, 60],
    [{ 'cache-control': 's-maxage=5, max-age=60' }, 60],
    [{ 'cache-control': 'max-age=60', age: '40' }, 20],
    [{ 'cache-control': 'max-age=60', age: 'x' }, 60],
    [{ 'cache-control': 'max-age=60', age: '90' }, 10],
    [{ 'cache-control': 'max-age=60, no-store' }, 10],
    [{ 'cache-control': 'no-cache' }, 10],
    [{ 'cache-control': 'max-age=-1' }, 100],
    [{ 'cache-control': 'max-age=5' }, 10],
    [{ 'cache-control': 'max-age=5000' }, 1000],
    [{ date, expires: 'Fri, 20 Nov 2026 10:02:00 GMT' }, 120],
    [{ date, expires: date }, 10],
    [{ date, expires: '0' }, 10],
    [{ expires: 'Fri, 20 Nov 2026 10:02:00 GMT' }, 100],
    [{ date, expires: 'Fri, 20 Nov 2026 10:02:00 GMT', 'cache-control': 'max-age=60' }, 60],
  ] as const)
    t.equal(freshSeconds(headers, limits), seconds, JSON.stringify(headers))
})
