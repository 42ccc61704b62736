import t, { type Test } from 'tap'
import { asOAuthError } from '../../src/operations/fault.ts'

type Line = Record<string, unknown> & { level: string }

/** A log that keeps its lines. */
function openLog() {
  const lines: Line[] = []
  const write = (level: string) => (facts: object) => void lines.push({ level, ...facts })
  return { lines, log: { info: write('info'), warn: write('warn'), error: write('error') } }
}

/** Timers that run when the test says so. */
function holdTimers(t: Test): { seconds: number; run: () => void }[] {
  const timers: { seconds: number; run: () => void }[] = []
  const original = globalThis.setTimeout
  t.teardown(() => {
    globalThis.setTimeout = original
  })
  globalThis.setTimeout = ((run: () => void, milliseconds: number) => {
    timers.push({ seconds: milliseconds / 1000, run })
    return { unref: () => {} }
  }) as unknown as typeof setTimeout
  return timers
}

t.test('an outage is logged whole once in ten seconds, and each refused request in brief', async (t) => {
  const timers = holdTimers(t)
  const { lines, log } = openLog()
  const away = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })
  const refuse = (times: number) => {
    for (let n = 0; n < times; n += 1) {
      const shown = asOAuthError(away, log as never, '/token')
      t.match(shown, { code: 'temporarily_unavailable', reason: 'database_unavailable', status: 503 })
    }
  }
  const common = { event: 'database_unavailable', reason: 'database_unavailable', route: '/token' }
  const brief = { level: 'warn', ...common }
  refuse(3)
  t.same(lines, [{ level: 'error', ...common, err: away, logged_in_brief: 0 }, brief, brief])
  t.same(
    timers.map(({ seconds }) => seconds),
    [10],
  )
  timers[0]?.run()
  lines.length = 0
  refuse(2)
  t.same(lines, [{ level: 'error', ...common, err: away, logged_in_brief: 2 }, brief])
})
