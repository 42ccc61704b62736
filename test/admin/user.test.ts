import t from 'tap'
import { clientAdd } from '../../src/admin/client.ts'
import { resourceAdd } from '../../src/admin/resource.ts'
import { userList, userRemove, userSetDisabled, userSetPassword } from '../../src/admin/user.ts'
import { findUser } from '../../src/store/user.ts'
import { createPasswordHasher } from '../../src/users/password.ts'
import { addGrant, jsonOf, refusalOf, startCommand, textOf } from './command.ts'

t.jobs = 4

t.test('a user is added with the first line of standard input as password', { buffered: true }, async (t) => {
  const { succeed, ask, db } = await startCommand(t)
  const passwords = createPasswordHasher()
  const inputs = { alice: 'correct horse', bob: 'correct horse\r\n', carol: 'correct horse\nmore\n' }
  for (const [name, input] of Object.entries(inputs)) {
    t.match(await succeed(['user', 'add', name], input), `Added ${name}.`)
    t.ok(await passwords.verify((await findUser(db, name))?.password_hash, 'correct horse'), name)
  }
  const answer = await ask(['user', 'add', 'Erin', '--admin'], 'correct horse')
  t.match(answer, { id: String, name: 'Erin', admin: true, disabled: false, created_at: /^\d{4}-.*Z$/ })
  t.match(await findUser(db, 'erin'), { id: answer.id, is_administrator: true })
})

t.test('a name or a password that cannot be used is refused with the reason', { buffered: true }, async (t) => {
  const { succeed, fail, config } = await startCommand(t)
  await succeed(['user', 'add', 'alice'], 'correct horse')
  t.match(await fail(['user', 'add', 'ALICE'], 'correct horse'), 'There is a user alice already.')
  t.match(await fail(['user', 'add', 'a b'], 'correct horse'), /without spaces/)
  t.match(await fail(['user', 'add', 'bob'], 'short'), /at least 8 characters/)
  t.match(await fail(['user', 'add', 'bob'], ''), /No password was given/)
  t.match(await fail(['user', 'set-password', 'alice'], 'short'), /at least 8 characters/)
  t.equal((await jsonOf(userList(config))).length, 1)
})

t.test('the list shows who there is, in columns or as JSON', { buffered: true }, async (t) => {
  const { succeed, ask, config } = await startCommand(t)
  t.match(await textOf(userList(config)), 'There is no user yet')
  t.same(await jsonOf(userList(config)), [])
  await succeed(['user', 'add', 'alice', '--admin'], 'correct horse')
  await succeed(['user', 'add', 'bartholomew'], 'correct horse')
  t.match(await succeed(['user', 'disable', 'bartholomew']), 'Disabled bartholomew')
  const [headings = '', alice = '', bartholomew = ''] = (await succeed(['user', 'list'])).split('\n')
  t.match(headings, /^NAME +ADMIN +DISABLED \(UTC\) +CREATED \(UTC\)$/)
  t.match(alice, /^alice +yes +\d{4}-\d\d-\d\d \d\d:\d\d$/)
  t.match(bartholomew, /^bartholomew +\d{4}-\d\d-\d\d \d\d:\d\d +\d{4}-\d\d-\d\d \d\d:\d\d$/)
  t.equal(alice.lastIndexOf('  ') + 2, headings.indexOf('CREATED'), 'the columns line up')
  t.match(await ask(['user', 'list']), [
    { name: 'alice', admin: true, disabled: false },
    { name: 'bartholomew', admin: false, disabled: true },
  ])
})

t.test('a user can be disabled, enabled, and given another password', { buffered: true }, async (t) => {
  const { succeed, ask, fail, config, db } = await startCommand(t)
  await succeed(['user', 'add', 'alice'], 'correct horse')
  t.match(await jsonOf(userSetDisabled(config, 'ALICE', true)), { name: 'alice', disabled: true })
  t.match(await jsonOf(userSetDisabled(config, 'alice', true)), { name: 'alice', disabled: true })
  t.match(await ask(['user', 'enable', 'alice']), { name: 'alice', disabled: false })
  t.match(await succeed(['user', 'set-password', 'alice'], 'battery staple'), 'Changed the password of alice')
  const passwords = createPasswordHasher()
  const user = await findUser(db, 'alice')
  t.ok(await passwords.verify(user?.password_hash, 'battery staple'))
  t.notOk(await passwords.verify(user?.password_hash, 'correct horse'))
  t.match(await fail(['user', 'remove', 'nobody']), 'There is no user nobody')
  t.match(await refusalOf(userSetDisabled(config, 'nobody', true)), 'There is no user nobody')
  t.match(await refusalOf(userSetPassword(config, 'nobody')), 'There is no user nobody')
})

t.test('removing a user says how many grants ended with it', { buffered: true }, async (t) => {
  const { succeed, config, db } = await startCommand(t)
  for (const name of ['alice', 'bob']) await succeed(['user', 'add', name], 'correct horse')
  await resourceAdd(config, 'https://mcp.example.com/mcp', {})
  const app = { name: 'App', redirectUri: ['https://app.example.com/callback'] }
  const { client_id } = await jsonOf(clientAdd(config, app))
  for (const name of ['alice', 'alice', 'bob']) await addGrant(db, name, client_id)
  t.equal(await succeed(['user', 'remove', 'alice']), 'Removed alice; 2 grants ended.\n')
  t.same(await jsonOf(userRemove(config, 'bob')), { name: 'bob', ended_grants: 1 })
  t.same(await jsonOf(userList(config)), [])
})
