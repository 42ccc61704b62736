import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'

const BENCH = join(import.meta.dirname, '..', '..', 'bench', 'run.js')

t.test('the bench starts Postern on a Postgres of its own, measures, and prints a table', async (t) => {
  const args = [
    '--rounds',
    '1',
    '--requests',
    '50',
    '--rows',
    '100',
    '--server',
    'postern',
    '--only',
    'introspect-user',
  ]
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [BENCH, ...args])
  t.match(stdout, /^## Introspection of user tokens$/m)
  t.match(stdout, /^\| postern \| [\d,]+ \|/m)
  t.match(stderr, /^round 1\/1 {2}introspect-user: postern \d+$/m)
  t.notMatch(stderr, 'RESULTS.md', 'figures of a small run are not written down')
})
