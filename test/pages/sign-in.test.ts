import t from 'tap'
import { setUserDisabled, setUserPassword } from '../../src/store/user.ts'
import { letTimePass } from '../support/database.ts'
import { Person, textOf } from '../support/person.ts'
import { addUser, countRows, PASSWORD, startTestPostern, type TestPostern } from '../support/postern.ts'
import { startReplica } from '../support/replica.ts'

const WRONG = 'The username or the password is not right.'
const TOO_MANY = 'There were too many attempts.'
const WINDOW_SECONDS = 900

interface Answer {
  status: number
  text: string
  headers: Headers
}

/** Opens the sign-in page and sends it; without a person, from a browser that nobody has used before. */
async function signIn(
  place: string | TestPostern,
  { username = 'alice', password = PASSWORD, person = new Person() } = {},
): Promise<Answer> {
  const address = `${typeof place === 'string' ? place : place.issuer}/login`
  const html = await (await person.request(address)).text()
  const answer = await person.submit({ address, html }, '/login', { username, password })
  return { status: answer.status, text: textOf(await answer.text()), headers: answer.headers }
}

async function guess(place: string | TestPostern, times: number, username = 'alice'): Promise<number[]> {
  const answers = await Promise.all(
    Array.from({ length: times }, () => signIn(place, { username, password: 'a wrong guess' })),
  )
  return answers.map(({ status }) => status)
}

function many(status: number, times: number): number[] {
  return Array(times).fill(status)
}

/** Whether the browser of a person is signed in. */
async function isSignedIn({ issuer }: TestPostern, person: Person): Promise<boolean> {
  return (await person.request(`${issuer}/account`)).status === 200
}

t.test('ten guesses at an account from strange browsers, then the right password is refused as well', async (t) => {
  const postern = await startTestPostern(t)
  await addUser(postern, 'bob')
  t.same(await guess(postern, 10), many(403, 10))
  const refused = await signIn(postern)
  t.equal(refused.status, 429)
  t.match(refused.text, `${TOO_MANY} Please try again in 15 minutes.`)
  t.ok(Number(refused.headers.get('retry-after')) > WINDOW_SECONDS - 60)
  t.equal((await signIn(postern, { username: 'bob' })).status, 303, 'another account is not concerned')
  await letTimePass(postern.db, WINDOW_SECONDS)
  t.equal((await signIn(postern)).status, 303, 'the window ends')
})

t.test('guesses at the same time all count', async (t) => {
  const postern = await startTestPostern(t)
  const statuses = await guess(postern, 40)
  t.same(statuses.sort(), [...many(403, 10), ...many(429, 30)])
})

t.test('signing in forgives the guesses before', async (t) => {
  const postern = await startTestPostern(t)
  t.same(await guess(postern, 9), many(403, 9))
  t.equal((await signIn(postern)).status, 303)
  t.same(await guess(postern, 9), many(403, 9))
  t.equal((await signIn(postern)).status, 303)
})

t.test('one name in several spellings is one account', async (t) => {
  const postern = await startTestPostern(t)
  for (const username of ['Alice', ' alice ', 'ａｌｉｃｅ', 'ALICE', 'alice']) await guess(postern, 2, username)
  t.equal((await signIn(postern)).status, 429)
})

t.test('a browser that its owner has used is let through, however much strangers guess', async (t) => {
  const postern = await startTestPostern(t)
  await addUser(postern, 'bob')
  const alice = new Person()
  t.equal((await signIn(postern, { person: alice })).status, 303)
  await guess(postern, 10)
  await guess(postern, 10, 'bob')
  t.equal((await signIn(postern)).status, 429)
  t.equal((await signIn(postern, { person: alice, password: 'mistyped' })).status, 403)
  t.equal((await signIn(postern, { person: alice })).status, 303)
  t.equal((await signIn(postern, { person: alice, username: 'bob' })).status, 429, 'for her own account alone')
  for (let times = 0; times < 10; times += 1) {
    t.equal((await signIn(postern, { person: alice, password: 'a wrong guess' })).status, 403)
  }
  t.equal((await signIn(postern, { person: alice })).status, 429, 'it has a count of its own')
})

t.test('a new password makes every browser a strange one, and ends its session', async (t) => {
  const postern = await startTestPostern(t)
  const alice = new Person()
  await signIn(postern, { person: alice })
  t.ok(await isSignedIn(postern, alice))
  await setUserPassword(postern.db, 'alice', await postern.context.passwords.hash('another password'))
  t.notOk(await isSignedIn(postern, alice))
  await guess(postern, 10)
  t.equal((await signIn(postern, { person: alice, password: 'another password' })).status, 429)
})

t.test('a hundred guesses from one network, then nobody signs in from there', async (t) => {
  const postern = await startTestPostern(t, { trustProxy: 1 })
  const [address, guesser] = [`${postern.issuer}/login`, from('203.0.113.7')]
  const html = await (await guesser.request(address)).text()
  const guesses = Array.from({ length: 99 }, (_, n) =>
    guesser.submit({ address, html }, '/login', { username: `name${n}`, password: 'a wrong guess' }),
  )
  for (const answer of await Promise.all(guesses)) if (answer.status !== 403) t.fail(`answered with ${answer.status}`)
  t.equal((await signIn(postern, { person: from('203.0.113.7') })).status, 303, 'the hundredth is not too many')
  t.equal((await signIn(postern, { person: from('203.0.113.7'), password: 'wrong' })).status, 403, 'nor did it count')
  const refused = await signIn(postern, { person: from('203.0.113.7') })
  t.equal(refused.status, 429)
  t.match(refused.text, TOO_MANY)
  t.equal((await signIn(postern, { person: from('203.0.113.8') })).status, 303, 'another network is not concerned')
  await letTimePass(postern.db, WINDOW_SECONDS)
  t.equal((await signIn(postern, { person: from('203.0.113.7') })).status, 303, 'the window ends')
})

t.test('an IPv6 network is its /64, and IPv4 in IPv6 is IPv4', async (t) => {
  const postern = await startTestPostern(t, { trustProxy: 1 })
  const statuses: number[] = []
  for (const address of ['2001:db8::1', '2001:db8:0:0:ffff::2', '::ffff:203.0.113.7', '203.0.113.7']) {
    statuses.push((await signIn(postern, { person: from(address), username: address, password: 'wrong' })).status)
  }
  t.same(statuses, many(403, 4))
  const accounts = 4
  t.equal(await countRows(postern, 'throttle'), accounts + 2)
})

t.test('X-Forwarded-For is not believed when no proxy is trusted', async (t) => {
  const postern = await startTestPostern(t)
  for (const n of [1, 2, 3]) await signIn(postern, { person: from(`203.0.113.${n}`), password: 'wrong' })
  t.equal(await countRows(postern, 'throttle'), 2, 'one account, one network')
})

t.test('replicas share the counts, and a restart keeps them', async (t) => {
  const postern = await startTestPostern(t)
  const replica = await startReplica(t, postern)
  t.same(await guess(postern, 5), many(403, 5))
  t.same(await guess(replica, 5), many(403, 5))
  t.equal((await signIn(postern)).status, 429)
  t.equal((await signIn(replica)).status, 429)
  t.equal((await signIn(await startReplica(t, postern))).status, 429, 'a process that has just started')
})

t.test('a session that one replica opened holds at the other', async (t) => {
  const postern = await startTestPostern(t)
  const [replica, alice] = [await startReplica(t, postern), new Person()]
  t.equal((await signIn(replica, { person: alice })).status, 303)
  t.ok(await isSignedIn(postern, alice))
})

t.test('nothing tells whether an account exists', async (t) => {
  const postern = await startTestPostern(t)
  await addUser(postern, 'disabled')
  await setUserDisabled(postern.db, 'disabled', true)
  const attempts = [
    { username: 'alice', password: 'a wrong guess' },
    { username: 'nobody', password: 'a wrong guess' },
    { username: 'no body', password: 'a wrong guess' }, // can't be a name
    { username: 'disabled', password: PASSWORD },
    { username: 'disabled', password: 'a wrong guess' },
  ]
  const { passwords } = postern.context
  let computations = 0
  postern.context.passwords = {
    ...passwords,
    verify: (...given) => {
      computations += 1
      return passwords.verify(...given)
    },
  }
  const answers = []
  for (const attempt of attempts) {
    computations = 0
    const { status, text, headers } = await signIn(postern, attempt)
    const names = [...headers.keys()].filter((name) => name !== 'date').sort()
    answers.push({ status, text, names, computations })
  }
  t.match(answers[0], { status: 403, text: WRONG, computations: 1 })
  for (const answer of answers) t.same(answer, answers[0])
  const statuses = [...(await guess(postern, 11, 'nobody')), ...(await guess(postern, 11, 'no body'))]
  t.same(statuses.filter((status) => status === 429).length, 4, 'and both are throttled')
})

t.test('the password of a missing user takes as long to refuse', async (t) => {
  const { context } = await startTestPostern(t)
  const right = await context.passwords.hash(PASSWORD)
  const quickest = async (passwordHash: string | undefined) => {
    const times: number[] = []
    for (let n = 0; n < 7; n += 1) {
      const started = performance.now()
      t.notOk(await context.passwords.verify(passwordHash, 'a wrong guess'))
      times.push(performance.now() - started)
    }
    return Math.min(...times)
  }
  const [existing, missing] = [await quickest(right), await quickest(undefined)]
  t.ok(missing > existing / 3 && missing < existing * 3, `${missing} ms, and ${existing} ms for one who exists`)
})

t.test('signing in changes the session', async (t) => {
  const postern = await startTestPostern(t)
  await addUser(postern, 'bob')
  const browser = new Person()
  const before = sessionOf(await signIn(postern, { person: browser }))
  const after = sessionOf(await signIn(postern, { person: browser, username: 'bob' }))
  t.not(after, before)
  t.equal(await countRows(postern, 'session'), 1, 'the one before has ended')
  t.notOk(await isSignedIn(postern, holding(before)))
  t.ok(await isSignedIn(postern, holding(after)))
})

t.test('signing out ends the session in the database, not in the browser alone', async (t) => {
  const postern = await startTestPostern(t)
  const alice = new Person()
  const session = sessionOf(await signIn(postern, { person: alice }))
  const address = `${postern.issuer}/account`
  const html = await (await alice.request(address)).text()
  const answer = await alice.submit({ address, html }, '/logout', {})
  t.match(textOf(await answer.text()), 'You are signed out')
  t.match(answer.headers.getSetCookie().join(), /postern-session-\w+=; Max-Age=0/)
  t.notOk(await isSignedIn(postern, holding(session)))
  t.equal(await countRows(postern, 'session'), 0)
})

t.test('a session ends by time, used or not', async (t) => {
  const postern = await startTestPostern(t, { sessionSeconds: 600 })
  const alice = new Person()
  await signIn(postern, { person: alice })
  await letTimePass(postern.db, 590)
  t.ok(await isSignedIn(postern, alice))
  await letTimePass(postern.db, 11)
  t.notOk(await isSignedIn(postern, alice))
})

t.test("a disabled user's sessions end, and stay ended", async (t) => {
  const postern = await startTestPostern(t)
  const alice = new Person()
  await signIn(postern, { person: alice })
  await setUserDisabled(postern.db, 'alice', true)
  t.notOk(await isSignedIn(postern, alice))
  t.equal((await signIn(postern, { person: alice })).status, 403)
  await setUserDisabled(postern.db, 'alice', false)
  t.notOk(await isSignedIn(postern, alice))
  t.equal((await signIn(postern, { person: alice })).status, 303)
})

t.test('the way goes on to a page of our own, and nowhere else', async (t) => {
  const postern = await startTestPostern(t)
  const alice = new Person()
  t.equal((await signIn(postern, { person: alice })).headers.get('location'), '/account')
  for (const elsewhere of [
    'https://evil.example',
    '//evil.example',
    'login',
    '/account',
    'authorize/..',
    '__proto__',
  ]) {
    const response = await alice.request(`${postern.issuer}/login?continue=${encodeURIComponent(elsewhere)}`)
    t.equal(response.status, 400, elsewhere)
  }
  const address = `${postern.issuer}/login?continue=authorize&state=${encodeURIComponent('a&b=c d/\n')}&continue2=x`
  const html = await (await alice.request(address)).text()
  const answer = await alice.submit({ address, html }, '/login', { username: 'alice', password: PASSWORD })
  const next = new URL(answer.headers.get('location') ?? '', postern.issuer)
  t.equal(next.origin + next.pathname, `${postern.issuer}/authorize`)
  t.same(
    [...next.searchParams],
    [
      ['state', 'a&b=c d/\n'],
      ['continue2', 'x'],
    ],
  )
})

t.test('what a person typed is shown as text', async (t) => {
  const postern = await startTestPostern(t)
  const [address, person] = [`${postern.issuer}/login`, new Person()]
  const html = await (await person.request(address)).text()
  const username = `"><script>alert(1)</script>&<%= 1 %>`
  const answer = await person.submit({ address, html }, '/login', { username, password: 'wrong' })
  const text = await answer.text()
  t.notMatch(text, '<script')
  t.match(text, 'value="&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&lt;%= 1 %&gt;"')
})

/** A person behind a proxy, at an address. */
function from(address: string): Person {
  return new Person({ 'x-forwarded-for': address })
}

/** The session cookie that an answer gives, as `name=value`. */
function sessionOf({ headers }: Answer): string {
  const line = headers.getSetCookie().find((cookie) => cookie.includes('postern-session-'))
  if (line === undefined) throw new Error('no session cookie')
  return line.replace(/;.*/, '')
}

/** A browser that has one cookie. */
function holding(cookie: string): Person {
  return new Person({ cookie })
}
