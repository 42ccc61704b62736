import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import t, { type Test } from 'tap'
import { findUser } from '../../src/store/user.ts'
import { createPasswordHasher } from '../../src/users/password.ts'
import { until } from '../support/until.ts'
import { CLI, startCommand } from './command.ts'

// util-linux's `script` gives a program a terminal; without one there is no prompt to test, and it is skipped
const hasScript = /util-linux/.test(spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout ?? '')
/** Made anew for each test: tap writes into the options that it gets, and shared ones mix the tests' results up. */
const promptOptions = () =>
  hasScript ? { buffered: true } : { skip: 'there is no script (util-linux) to make a terminal with' }
t.jobs = 4

const FIRST = 'Password (at least 8 characters): '
const SECOND = 'The same again: '

/** Runs a shell command at a terminal. */
function atTerminal(t: Test, databaseUrl: string, command: string) {
  const env = { ...process.env, DATABASE_URL: databaseUrl, NODE: process.execPath, CLI }
  const child = spawn('script', ['--quiet', '--return', '--command', command, '/dev/null'], { env })
  t.teardown(() => child.kill('SIGKILL'))
  let screen = ''
  child.stdout.on('data', (chunk) => {
    screen += chunk
  })
  const exited = once(child, 'exit')
  return {
    /** types when the text has appeared */
    async type(keys: string, after: string) {
      await until(() => screen.includes(after))
      child.stdin.write(keys)
    },
    /** everything that the person saw, and the exit code */
    async end() {
      const [code] = await exited
      return { code, screen }
    },
  }
}

async function hasPassword(db: Parameters<typeof findUser>[0], name: string, password: string): Promise<boolean> {
  const passwords = createPasswordHasher()
  return passwords.verify((await findUser(db, name))?.password_hash, password)
}

t.test('at a terminal the password is asked twice and never shown', promptOptions(), async (t) => {
  const { config, db } = await startCommand(t)
  const terminal = atTerminal(t, config.databaseUrl ?? '', '"$NODE" "$CLI" user add alice')
  await terminal.type('correct hörse\r', FIRST)
  await terminal.type('correct hörse\r', SECOND)
  const { code, screen } = await terminal.end()
  t.equal(code, 0)
  t.match(screen, 'Added alice.')
  t.notMatch(screen, /correct|horse|hörse/)
  t.ok(await hasPassword(db, 'alice', 'correct hörse'))
})

t.test('mistyped keys can be taken back, and other keys write nothing', promptOptions(), async (t) => {
  const { config, db } = await startCommand(t)
  const terminal = atTerminal(t, config.databaseUrl ?? '', '"$NODE" "$CLI" user add alice')
  await terminal.type('oops\x15correct\x1b[A\t horsé\x7fe\r', FIRST) // Ctrl-U, arrow up, tab, backspace
  await terminal.type('correct horse\r', SECOND)
  t.equal((await terminal.end()).code, 0)
  t.ok(await hasPassword(db, 'alice', 'correct horse'))
})

t.test('both lines may be pasted at once', promptOptions(), async (t) => {
  const { config, db } = await startCommand(t)
  const terminal = atTerminal(t, config.databaseUrl ?? '', '"$NODE" "$CLI" user add alice')
  await terminal.type('correct horse\rcorrect horse\r', FIRST)
  t.equal((await terminal.end()).code, 0)
  t.ok(await hasPassword(db, 'alice', 'correct horse'))
})

t.test('passwords that differ change nothing', promptOptions(), async (t) => {
  const { config, db } = await startCommand(t)
  const terminal = atTerminal(t, config.databaseUrl ?? '', '"$NODE" "$CLI" user add alice')
  await terminal.type('correct horse\r', FIRST)
  await terminal.type('battery staple\r', SECOND)
  const { code, screen } = await terminal.end()
  t.equal(code, 1)
  t.match(screen, 'The passwords differ')
  t.equal(await findUser(db, 'alice'), undefined)
})

t.test('Ctrl-C ends the question, changes nothing, and gives the terminal back', promptOptions(), async (t) => {
  const { config, db } = await startCommand(t)
  const terminal = atTerminal(t, config.databaseUrl ?? '', '"$NODE" "$CLI" user add alice; echo "exit=$?"; stty -a')
  await terminal.type('correct\x03', FIRST)
  const { screen } = await terminal.end()
  t.match(screen, 'exit=130')
  t.match(screen, /(?<!-)\bicanon\b/)
  t.match(screen, /(?<!-)\becho\b/)
  t.equal(await findUser(db, 'alice'), undefined)
})

t.test('a name that is taken is refused before the password is asked', promptOptions(), async (t) => {
  const { config, succeed } = await startCommand(t)
  await succeed(['user', 'add', 'alice'], 'correct horse')
  const { code, screen } = await atTerminal(t, config.databaseUrl ?? '', '"$NODE" "$CLI" user add alice').end()
  t.equal(code, 1)
  t.match(screen, 'There is a user alice already.')
  t.notMatch(screen, FIRST)
})
