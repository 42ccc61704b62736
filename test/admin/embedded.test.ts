import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { startProgram } from '../support/child-process.ts'
import { createTestDatabase } from '../support/database.ts'
import { freePort } from '../support/postern.ts'
import { CLI, commandIn, type Ran } from './command.ts'

t.setTimeout(300_000) // milliseconds: new databases and many processes, on machines that may be busy

const SUCCESS = { code: 0, errors: '' }

async function emptyEnvironment(t: Test): Promise<Record<string, string>> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-test-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return { DATA_DIR: join(folder, 'data'), HOST: '127.0.0.1', PORT: String(await freePort()) }
}

function startServer(t: Test, env: Record<string, string>) {
  return startProgram(t, CLI, { args: ['serve'], env, ready: (line) => line.includes('"event":"started"') })
}

function names({ output }: Ran): string[] {
  return JSON.parse(output).map(({ name }: { name: string }) => name)
}

t.test('commands work with the server down, up, and killed a moment ago', async (t) => {
  const env = await emptyEnvironment(t)
  const run = commandIn(env)
  const add = (name: string) => run(['user', 'add', name], 'correct horse')
  t.match(await add('before'), SUCCESS, 'no server, no database yet')

  const server = await startServer(t, env)
  t.match(await Promise.all([add('during'), add('meanwhile')]), [SUCCESS, SUCCESS], 'beside the server')
  const ready = await fetch(`http://127.0.0.1:${env.PORT}/health/ready`)
  t.equal(ready.status, 200, 'which the commands leave running')

  server.process.kill('SIGKILL')
  await once(server.process, 'exit')
  t.match(await add('after'), SUCCESS, 'killed a moment ago')
  t.same(names(await run(['user', 'list', '--json'])), ['after', 'before', 'during', 'meanwhile'])

  const next = await startServer(t, env)
  await next.stop()
  t.same(
    names(await run(['user', 'list', '--json'])),
    ['after', 'before', 'during', 'meanwhile'],
    'stopped a moment ago',
  )
})

t.test('of many commands at once on a new database, each does its work', async (t) => {
  const run = commandIn(await emptyEnvironment(t))
  const uris = ['a', 'b', 'c'].map((host) => `https://${host}.example.com`)
  for (const answer of await Promise.all(uris.map((uri) => run(['resource', 'add', uri])))) t.match(answer, SUCCESS)
  const listed: { resource: string; default: boolean }[] = JSON.parse(
    (await run(['resource', 'list', '--json'])).output,
  )
  t.same(
    listed.map(({ resource }) => resource),
    uris,
  )
  t.equal(listed.filter((resource) => resource.default).length, 1)
})

t.test('a server that cannot start says why in one line', async (t) => {
  const env = await emptyEnvironment(t)
  await startServer(t, env)
  const sameData = await commandIn({ ...env, PORT: String(await freePort()) })(['serve'])
  t.equal(sameData.code, 1)
  t.match(sameData.errors, /^[^\n]*in use by another process \(pid \d+\)[^\n]*\n$/)
  const { url } = await createTestDatabase(t)
  const samePort = await commandIn({ ...env, DATABASE_URL: url })(['serve'])
  t.equal(samePort.code, 1)
  t.match(samePort.errors, /^Port \d+ on \S+ is in use by another program; set PORT\.\n$/)
})
