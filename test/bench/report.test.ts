import t from 'tap'
import { describe, type Measurement, median, type ProcessFacts } from '../../bench/report.ts'
import { SERVERS } from '../../bench/servers.ts'

const CIRCUMSTANCES = { machine: 'a machine', versions: 'some versions', settings: 'some settings' }

/** What a report needs to know of two processes. */
const processes = (...variants: string[]): ProcessFacts[] =>
  variants.map((variant) => ({ server: 'postern', variant, startMilliseconds: 1, memoryMebibytes: 1 }))

function rounds(server: string, rates: number[], variant = ''): Measurement[] {
  return rates.map((rate) => ({
    server,
    variant,
    operation: 'refresh',
    count: 100,
    rate,
    p50Milliseconds: 1,
    p99Milliseconds: 2,
    serverMicroseconds: 10_000,
    databaseMicroseconds: undefined,
  }))
}

t.test('the bench shows medians, their spread, and ratios to limits and peers', async (t) => {
  const measured = [...rounds('oidc-provider', [90, 100, 110]), ...rounds('postern', [500, 400, 420])]
  const report = describe(measured, processes(''), SERVERS, CIRCUMSTANCES)
  const row = report.split('\n').find((line) => line.startsWith('| postern |'))
  t.equal(row, '| postern | 420 | 400 to 500 | 4.20 | 1.00 | 2.00 | 100 | – |')
  t.match(report, '| server | per second | spread | of oidc-provider |')
})

t.test('with two sizes, each server is compared with itself, and with the others of that size', async (t) => {
  const measured = [
    ...rounds('postern', [400], 'many rows'),
    ...rounds('postern', [500], 'few rows'),
    ...rounds('batched', [1000], 'few rows'),
    ...rounds('batched', [500], 'many rows'),
  ]
  const report = describe(measured, processes('few rows', 'many rows'), SERVERS, CIRCUMSTANCES)
  t.match(report, '| server | per second | spread | of its own, few rows | of batched |')
  t.match(report, '| postern, few rows | 500 | 500 to 500 |  | 0.50 |')
  t.match(report, '| postern, many rows | 400 | 400 to 400 | 0.80 | 0.80 |')
  t.match(report, '| batched, many rows | 500 | 500 to 500 | 0.50 |  |')
})

t.test('a server that can’t do an operation is left out with the reason', async (t) => {
  const measured: Measurement[] = rounds('postern', [100]).map((one) => ({ ...one, operation: 'register' }))
  const report = describe(measured, processes(''), SERVERS, CIRCUMSTANCES)
  t.match(report, 'Left out: registration at oauth2-server: the library has no registration.')
})

t.test('the median of an even number of rounds lies between the two in the middle', async (t) => {
  t.equal(median([4, 1, 3, 2]), 2.5)
  t.equal(median([3, 1, 2]), 2)
})
