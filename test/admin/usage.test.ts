import { spawn } from 'node:child_process'
import { once } from 'node:events'
import t from 'tap'
import { migrateCommand } from '../../src/admin/database.ts'
import { readConfig } from '../../src/config.ts'
import { administrate, createTestDatabase, withDatabase } from '../support/database.ts'
import { CLI, commandIn, jsonOf, refusalOf, startCommand, textOf } from './command.ts'

t.jobs = 4

const NOWHERE = 'postgres://postern@127.0.0.1:1/postern'

t.test('the help of a command has an example, and tells of --json', { buffered: true }, async (t) => {
  const run = commandIn({})
  for (const command of ['doctor', 'user add', 'resource rotate-secret', 'grant revoke']) {
    const { code, output, errors } = await run([...command.split(' '), '--help'])
    t.same({ code, errors }, { code: 0, errors: '' }, command)
    t.match(output, new RegExp(`\nExample:\n  postern ${command} \\S`), command)
    t.match(output, / --json /, command)
  }
  const { output } = await run(['client', '--help'])
  for (const name of ['add', 'list', 'show', 'rotate-secret', 'disable', 'enable', 'remove']) {
    t.match(output, new RegExp(`\n  ${name} `), name)
  }
})

t.test('the help of serve lists every setting with its default', { buffered: true }, async (t) => {
  const { output } = await commandIn({})(['serve', '--help'])
  t.match(output, /\n {2}ISSUER +public address .*\(default http:\/\/localhost:PORT\)/)
  t.match(output, /\n {2}POSTERN_ACCESS_TOKEN_SECONDS +\S.*\(default 3600\)/)
  t.match(output, /\n {2}DATABASE_URL .*DATABASE_URL_FILE/)
})

t.test('bad usage is one line on standard error, and exit code 2', { buffered: true }, async (t) => {
  const run = commandIn({})
  for (const args of [['frob'], ['user', 'frob'], ['user', 'disable'], ['migrate', '--frob'], ['client', 'add']]) {
    const { code, output, errors } = await run(args)
    t.same({ code, output }, { code: 2, output: '' }, args.join(' '))
    t.match(errors, /^error: [^\n]+\n$/, args.join(' '))
  }
  for (const args of [[], ['user']]) {
    const { code, output, errors } = await run(args)
    t.same({ code, output }, { code: 2, output: '' })
    t.match(errors, /^Usage: postern/)
  }
  t.match(await run(['--version']), { code: 0, output: /^\d+\.\d+\.\d+\n$/ })
})

t.test('bad settings are named, all at once', { buffered: true }, async (t) => {
  for (const args of [['user', 'list'], ['serve']]) {
    const { code, output, errors } = await commandIn({ PORT: 'x', POSTERN_FROB: '1' })(args)
    t.same({ code, output }, { code: 1, output: '' })
    t.match(errors, /PORT must be a port number/)
    t.match(errors, /POSTERN_FROB is not a setting/)
    t.notMatch(errors, /\n +at /)
  }
})

t.test('a database that is away is one line that says so, and no stack', { buffered: true }, async (t) => {
  const { code, output, errors } = await commandIn({ DATABASE_URL: NOWHERE })(['user', 'list'])
  t.same({ code, output }, { code: 1, output: '' })
  t.equal(errors, "The database of DATABASE_URL can't be used: connect ECONNREFUSED 127.0.0.1:1.\n")
  const config = (url: string) => readConfig({ DATABASE_URL: url })
  t.match(await refusalOf(migrateCommand(config(NOWHERE.replace('127.0.0.1', 'localhost')))), /ECONNREFUSED/)
  t.match(await refusalOf(migrateCommand(config('postgres://x:y:z:/@'))), /can't be used: \S/)
  const { url } = await createTestDatabase(t)
  t.match(await refusalOf(migrateCommand(config(withDatabase(url, 'nothing_here')))), /"nothing_here" does not exist/)
})

t.test('a command brings the database up to date, and migrate says what it did', { buffered: true }, async (t) => {
  const { succeed, config } = await startCommand(t)
  t.equal(await succeed(['migrate']), 'Nothing to do: the database is up to date.\n')
  t.same(await jsonOf(migrateCommand(config)), { migrations: [] })
  const clusterUrl = process.env.TEST_DATABASE_URL ?? ''
  const name = `test_empty_${process.pid}`
  await administrate(clusterUrl, `create database ${name}`)
  t.teardown(() => administrate(clusterUrl, `drop database ${name} with (force)`))
  const empty = withDatabase(clusterUrl, name)
  t.match(await commandIn({ DATABASE_URL: empty })(['user', 'list']), { code: 0, errors: '' })
  await administrate(empty, 'drop schema public cascade')
  await administrate(empty, 'create schema public')
  const { migrations } = await jsonOf(migrateCommand(readConfig({ DATABASE_URL: empty })))
  t.equal(migrations[0], '001-user')
  await administrate(empty, `insert into kysely_migration (name, timestamp) values ('999-later', '2100-01-01')`)
  t.match(await refusalOf(migrateCommand(readConfig({ DATABASE_URL: empty }))), /can't be migrated: .*999-later/)
  t.match(await textOf(migrateCommand(config)), 'Nothing to do')
})

t.test('a reader that has had enough, such as head, gets no stack', { buffered: true }, async (t) => {
  const child = spawn(process.execPath, [CLI, 'serve', '--help'], { stdio: ['ignore', 'pipe', 'pipe'] })
  child.stdout.destroy()
  let errors = ''
  child.stderr.on('data', (chunk) => {
    errors += chunk
  })
  t.same(await once(child, 'close'), [0, null])
  t.equal(errors, '')
})
