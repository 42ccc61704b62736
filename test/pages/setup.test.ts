import { join } from 'node:path'
import { sql } from 'kysely'
import t from 'tap'
import { createUser, issueSetupLink } from '../../src/users/create.ts'
import { startProgram } from '../support/child-process.ts'
import { createTestDatabase, letTimePass } from '../support/database.ts'
import { Person, textOf } from '../support/person.ts'
import { countRows, freePort, PASSWORD, startTestPostern, type TestPostern } from '../support/postern.ts'
import { until } from '../support/until.ts'
import { waiting } from '../support/waiting.ts'

const CLI = join(import.meta.dirname, '..', '..', 'src', 'cli.js')
const DAY = 86_400
const NO_LONGER_GOOD = 'This link is no longer good'
const PROBLEMS = {
  username: 'A username has 1 to 128 characters, without spaces and invisible characters.',
  password: 'A password has at least 8 characters.',
}

/** Opens a set-up link and sends its form. */
async function setUp(
  link: string,
  { username = 'alice', password = PASSWORD, person = new Person() } = {},
): Promise<{ status: number; text: string }> {
  const html = await (await person.request(link)).text()
  const answer = await person.submit({ address: link, html }, '/setup', { username, password })
  return { status: answer.status, text: textOf(await answer.text()) }
}

async function open(link: string): Promise<{ status: number; text: string }> {
  const answer = await new Person().request(link)
  return { status: answer.status, text: textOf(await answer.text()) }
}

async function users({ db }: TestPostern) {
  return db.selectFrom('user').select(['username', 'is_administrator']).execute()
}

t.test('the link creates the first administrator, who is signed in, and works once', async (t) => {
  const postern = await startTestPostern(t, {}, { bare: true })
  const [link, alice] = [await issueSetupLink(postern.context), new Person()]
  t.match(link, `${postern.issuer}/setup?token=postern_su_`)
  for (const _ of [1, 2]) t.match(await open(link), { status: 200, text: 'Create the first administrator' })
  t.match(await setUp(link, { person: alice }), { status: 200, text: 'Postern is ready' })
  t.same(await users(postern), [{ username: 'alice', is_administrator: true }])
  t.match(textOf(await (await alice.request(`${postern.issuer}/account`)).text()), /alice .*Administrator/)
  t.match(await open(link), { status: 403, text: NO_LONGER_GOOD })
  t.equal(await countRows(postern, 'setup_link'), 0)
})

t.test('with passwords switched off no link is printed: the log says what to do instead', async (t) => {
  const { url, db } = await createTestDatabase(t)
  const { lines } = await startProgram(t, CLI, {
    args: ['serve'],
    env: { PORT: String(await freePort()), DATABASE_URL: url, POSTERN_PASSWORD_SIGN_IN: 'off' },
    ready: (line) => line.includes('"event":"started"'),
  })
  t.match(
    lines.find((line) => line.includes('"event":"no_user"')),
    'postern provider add',
  )
  t.equal(await countRows({ db }, 'setup_link'), 0)
  const postern = await startTestPostern(t, { passwordSignIn: false }, { bare: true })
  const link = await issueSetupLink(postern.context)
  t.match(await open(link), { status: 403, text: 'Passwords are not used here' }, 'nor is an earlier link good')
})

t.test('a choice that is refused leaves the link good', async (t) => {
  const postern = await startTestPostern(t, {}, { bare: true })
  const link = await issueSetupLink(postern.context)
  t.match(await setUp(link, { password: 'short' }), { status: 400, text: PROBLEMS.password })
  t.match(await setUp(link, { password: '' }), { status: 400, text: PROBLEMS.password })
  t.match(await setUp(link, { username: 'two words' }), { status: 400, text: PROBLEMS.username })
  t.match(await setUp(link, { username: '' }), { status: 400, text: PROBLEMS.username })
  t.match(await setUp(link, { username: 'invisible\u200b' }), { status: 400, text: PROBLEMS.username })
  t.equal(await countRows(postern, 'user'), 0)
  t.match(await setUp(link), { status: 200, text: 'Postern is ready' })
})

t.test('of many who use links at the same time one is first, and the others are nobody', async (t) => {
  const postern = await startTestPostern(t, {}, { bare: true })
  const links = [await issueSetupLink(postern.context), await issueSetupLink(postern.context)]
  const people = Array.from({ length: 8 }, (_, n) => ({ link: links[n % 2] ?? '', username: `person${n}` }))
  const pages = await Promise.all(
    people.map(async ({ link, username }) => {
      const person = new Person()
      return { link, username, person, html: await (await person.request(link)).text() }
    }),
  )
  // nobody writes before all of them have come as far as they can
  const held = await postern.db.startTransaction().execute()
  await sql`lock table "user" in share mode`.execute(held)
  const answering = Promise.all(
    pages.map(async ({ link, username, person, html }) => {
      const { status } = await person.submit({ address: link, html }, '/setup', { username, password: PASSWORD })
      return { status, username, person }
    }),
  )
  await until(async () => (await waiting(postern.db)) === pages.length)
  await held.commit().execute()
  const answers = await answering
  const [first, ...others] = answers.filter(({ status }) => status === 200)
  t.same(others, [])
  t.same(await users(postern), [{ username: first?.username, is_administrator: true }])
  for (const { person } of answers.filter((answer) => answer !== first)) {
    t.equal((await person.request(`${postern.issuer}/account`)).status, 303, 'is not signed in')
  }
  t.equal(await countRows(postern, 'session'), 1)
})

t.test('no link is good when there is a user, however that came to be', async (t) => {
  const postern = await startTestPostern(t, {}, { bare: true })
  const link = await issueSetupLink(postern.context)
  const person = new Person()
  const html = await (await person.request(link)).text()
  await createUser(postern.context, { username: 'operator', password: PASSWORD, isAdministrator: false })
  const answer = await person.submit({ address: link, html }, '/setup', { username: 'alice', password: PASSWORD })
  t.equal(answer.status, 403)
  t.match(await open(link), { status: 403, text: NO_LONGER_GOOD })
  t.match(await open(await issueSetupLink(postern.context)), { status: 403, text: NO_LONGER_GOOD })
  t.same(await users(postern), [{ username: 'operator', is_administrator: false }])
})

t.test('a link ends after a day; that of another start of the server lives on', async (t) => {
  const postern = await startTestPostern(t, {}, { bare: true })
  const first = await issueSetupLink(postern.context)
  await letTimePass(postern.db, DAY / 2)
  const second = await issueSetupLink(postern.context)
  await letTimePass(postern.db, DAY / 2 - 60)
  t.match(await open(first), { status: 200 })
  await letTimePass(postern.db, 120)
  t.match(await open(first), { status: 403, text: NO_LONGER_GOOD })
  t.match(await open(second), { status: 200 })
})

t.test('a wrong link, or none, creates nobody', async (t) => {
  const postern = await startTestPostern(t, {}, { bare: true })
  const link = await issueSetupLink(postern.context)
  const other = link.slice(0, -20) + link.slice(-20).split('').reverse().join('')
  const wrong = [other, link.slice(0, -1), `${link}x`, `${postern.issuer}/setup?token=`, `${postern.issuer}/setup`]
  for (const address of wrong) t.match(await open(address), { status: 403, text: NO_LONGER_GOOD }, address)
  t.equal((await new Person().request(`${link}&token=x`)).status, 400, 'two are none')

  const person = new Person()
  const html = await (await person.request(link)).text()
  for (const address of wrong) {
    const form = html.replaceAll(/action="[^"]*"/g, `action="${address}"`)
    const answer = await person.submit({ address, html: form }, '/setup', { username: 'alice', password: PASSWORD })
    t.equal(answer.status, 403, address)
  }
  t.equal(await countRows(postern, 'user'), 0)
})

t.test('the link is kept as a hash alone, and leaves in no Referer', async (t) => {
  const postern = await startTestPostern(t, {}, { bare: true })
  const link = await issueSetupLink(postern.context)
  const rows = await postern.db.selectFrom('setup_link').selectAll().execute()
  t.equal(rows[0]?.secret_hash.length, 32)
  t.equal((await new Person().request(link)).headers.get('referrer-policy'), 'same-origin')
})
