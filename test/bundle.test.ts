import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'

const CLI = join(import.meta.dirname, '..', 'src', 'cli.js')

/** Makes Node.js write a line for each module that isn't its own. */
const LOADED = `data:text/javascript,${encodeURIComponent(`
  import { writeSync } from 'node:fs'
  export async function load(url, context, next) {
    if (url.startsWith('file:')) writeSync(2, 'loaded ' + url + '\\n')
    return next(url, context)
  }`)}`
const WATCH = `data:text/javascript,${encodeURIComponent(`
  import { register } from 'node:module'
  register(${JSON.stringify(LOADED)})`)}`

t.test('the program is loaded from few files, whatever it imports', async (t) => {
  const { stderr } = await promisify(execFile)(process.execPath, ['--import', WATCH, CLI, 'client', 'add', '--help'])
  const loaded = stderr.split('\n').filter((line) => line.startsWith('loaded '))
  t.ok(loaded.length > 0 && loaded.length < 20, `${loaded.length} files`)
  t.notOk(loaded.some((line) => line.includes('/zod/') || line.includes('/src/admin/')))
})

t.test('what isn’t in those files has packages of hundreds of modules in one', async (t) => {
  for (const name of ['kysely', 'kysely/migration', 'zod']) {
    t.match(import.meta.resolve(name), /\/dist\/node_modules\//, name)
  }
})
