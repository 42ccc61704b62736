import t from 'tap'
import { authorizeUrl, isActive, obtainTokens, pkce, refresh } from '../support/flow.ts'
import { Person, textOf } from '../support/person.ts'
import { addClient, addUser, PASSWORD, startTestPostern, type TestPostern } from '../support/postern.ts'
import { startReplica } from '../support/replica.ts'

const NEW_PASSWORD = 'a new horse, another battery'
const LAPTOP = 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36'
const PHONE = 'Mozilla/5.0 (Android 15; Mobile; rv:144.0) Gecko/144.0 Firefox/144.0'

const postern = await startTestPostern(t)
const replica = await startReplica(t, postern)
const client = await addClient(postern, { redirectUris: ['https://app.example/callback'], name: 'Example App' })

/** Somebody who is signed in. */
async function signIn(at: TestPostern, username: string, password = PASSWORD, userAgent = LAPTOP): Promise<Person> {
  const person = new Person({ 'user-agent': userAgent })
  const address = `${at.issuer}/login?continue=account`
  const html = await (await person.request(address)).text()
  const answer = await person.submit({ address, html }, '/login', { username, password })
  t.equal(answer.status, 303, `${username} signs in`)
  return person
}

async function open(person: Person, at: TestPostern = postern) {
  const address = `${at.issuer}/account`
  const answer = await person.request(address)
  return { address, status: answer.status, html: await answer.text() }
}

/** Sends a form of the account page; a question in between is answered with yes. */
async function submit(person: Person, path: string, fields: Record<string, string>, at: TestPostern = postern) {
  const page = await open(person, at)
  const answer = await person.submit(page, path, fields)
  if (answer.status !== 200) return answer
  const html = await answer.text()
  t.match(textOf(html), /\?/, 'asks first')
  return person.submit({ address: page.address, html }, path, { confirmed: 'yes' })
}

/** The values of a button with this name, in the order of the page. */
function values(html: string, name: string): string[] {
  return [...html.matchAll(new RegExp(`name="${name}" value="([^"]+)"`, 'g'))].map(([, value = '']) => value)
}

t.test('each connection stands by itself, and one is ended on every replica at once', async (t) => {
  await addUser(postern, 'berta')
  const berta = await signIn(postern, 'berta')
  const first = await obtainTokens(postern, client, {}, berta)
  const second = await obtainTokens(postern, client, { scope: 'read' }, berta)
  const page = await open(berta)
  const text = textOf(page.html)
  t.match(text, /Example App/)
  t.match(text, /app\.example/)
  t.match(text, /Allowed read, write/)
  t.match(text, /Connected \d{4}-\d\d-\d\d \d\d:\d\d UTC from 127\.0\.0\.1/)
  const grants = values(page.html, 'grant').filter((value) => value !== 'all')
  t.equal(grants.length, 2)
  const question = await berta.submit(page, '/account/grants/end', { grant: grants[0] ?? '' })
  t.match(textOf(await question.text()), /Disconnect Example App\?/)
  t.ok(await isActive(postern, second.access_token), 'the question alone ends nothing')
  const answer = await submit(berta, '/account/grants/end', { grant: grants[0] ?? '' })
  t.match(answer.headers.get('location'), /\/account\?done=grant$/)
  t.notOk(await isActive(replica, second.access_token), 'the newest came first')
  t.match((await refresh(replica, client, second.refresh_token)).body, { error: 'invalid_grant' })
  t.ok(await isActive(replica, first.access_token))
  t.equal((await refresh(replica, client, first.refresh_token)).status, 200)
})

t.test('all connections are ended at once, and the person is asked again', async (t) => {
  await addUser(postern, 'carla')
  const carla = await signIn(postern, 'carla')
  const tokens = [await obtainTokens(postern, client, {}, carla), await obtainTokens(postern, client, {}, carla)]
  await submit(carla, '/account/grants/end', { grant: 'all' })
  for (const { access_token } of tokens) t.notOk(await isActive(replica, access_token))
  t.match(textOf((await open(carla)).html), /No application is connected/)
  const asked = await carla.request(authorizeUrl(postern, client, pkce().challenge))
  t.match(asked.headers.get('location'), /\/consent\?/)
})

t.test("nobody ends, or sees, what is somebody else's", async (t) => {
  await addUser(postern, 'dora')
  await addUser(postern, 'mallory')
  const [dora, mallory] = [await signIn(postern, 'dora'), await signIn(postern, 'mallory')]
  const tokens = await obtainTokens(postern, client, {}, dora)
  await obtainTokens(postern, client, {}, mallory)
  const doras = await open(dora)
  const [grant = ''] = values(doras.html, 'grant')
  const other = await signIn(postern, 'dora', PASSWORD, PHONE)
  const [session = ''] = values((await open(dora)).html, 'session')
  t.notMatch((await open(mallory)).html, grant)
  await submit(mallory, '/account/grants/end', { grant })
  await signIn(postern, 'mallory') // or there would be no form for sessions
  await submit(mallory, '/account/sessions/end', { session })
  t.ok(await isActive(postern, tokens.access_token))
  t.equal((await open(other)).status, 200)
  for (const grant of ['', 'x', `${'0'.repeat(8)}-0000`]) {
    t.equal((await mallory.submit(await open(mallory), '/account/grants/end', { grant })).status, 404)
  }
})

t.test('sessions are named, and end on every replica at the next request', async (t) => {
  await addUser(postern, 'emma')
  const laptop = await signIn(postern, 'emma')
  const phone = await signIn(replica, 'emma', PASSWORD, PHONE)
  const tablet = await signIn(replica, 'emma')
  const page = await open(laptop)
  t.match(textOf(page.html), /Chrome on Linux this browser/)
  t.match(textOf(page.html), /Firefox on Android/)
  const phones = /<li>(?:(?!<\/li>)[\s\S])*?Firefox on Android[\s\S]*?name="session" value="([^"]+)"/.exec(
    page.html,
  )?.[1]
  await laptop.submit(page, '/account/sessions/end', { session: phones ?? '' })
  t.equal((await open(phone, replica)).status, 303, 'to the sign-in')
  t.equal((await open(tablet, replica)).status, 200)
  await submit(laptop, '/account/sessions/end', { session: 'others' })
  t.equal((await open(tablet, replica)).status, 303)
  t.equal((await open(laptop, replica)).status, 200)
})

t.test('a new password ends the other sessions, and the old one is refused', async (t) => {
  await addUser(postern, 'frida')
  const [laptop, phone] = [await signIn(postern, 'frida'), await signIn(postern, 'frida', PASSWORD, PHONE)]
  const tokens = await obtainTokens(postern, client, {}, laptop)
  const change = (current: string, next: string) =>
    submitPassword(laptop, { current_password: current, new_password: next })
  t.match(await change('wrong', NEW_PASSWORD), { status: 403, text: /The current password is not right/ })
  t.match(await change(PASSWORD, 'short'), { status: 403, text: /at least 8 characters/ })
  t.equal((await open(phone)).status, 200)
  t.match(await change(PASSWORD, NEW_PASSWORD), { status: 303 })
  t.equal((await open(laptop)).status, 200)
  t.equal((await open(phone)).status, 303)
  t.ok(await isActive(postern, tokens.access_token), 'connections live on')
  await signIn(postern, 'frida', NEW_PASSWORD)
})

t.test('of two changes at the same time one wins; guessing the current password is bounded', async (t) => {
  await addUser(postern, 'gerda')
  const [one, other] = [await signIn(postern, 'gerda'), await signIn(postern, 'gerda', PASSWORD, PHONE)]
  const passwords = { current_password: PASSWORD, new_password: NEW_PASSWORD }
  // both pages are open before either is sent: the change that wins ends the other's session
  const [page, otherPage] = [await open(one), await open(other)]
  const answers = await Promise.all([
    one.submit(page, '/account/password', passwords),
    other.submit(otherPage, '/account/password', passwords),
  ])
  const changed = answers.filter(({ headers }) => headers.get('location')?.endsWith('/account?done=password'))
  t.equal(changed.length, 1)
  await addUser(postern, 'hedwig')
  const hedwig = await signIn(postern, 'hedwig')
  for (let guess = 0; guess < 10; guess += 1) {
    t.equal((await submitPassword(hedwig, { current_password: `${guess}`, new_password: NEW_PASSWORD })).status, 403)
  }
  t.match(await submitPassword(hedwig, passwords), { status: 429 })
})

t.test('a form from elsewhere changes nothing', async (t) => {
  await addUser(postern, 'irma')
  const irma = await signIn(postern, 'irma')
  const tokens = await obtainTokens(postern, client, {}, irma)
  for (const path of ['grants/end', 'sessions/end', 'password', 'providers/link', 'providers/unlink']) {
    const body = new URLSearchParams({ grant: 'all', session: 'others', confirmed: 'yes', form_token: 'x' })
    const answer = await irma.request(`${postern.issuer}/account/${path}`, { method: 'POST', body })
    t.equal(answer.status, 403, path)
  }
  t.ok(await isActive(postern, tokens.access_token))
})

t.test('an address that tells of nothing that can be done says nothing of it', async (t) => {
  await addUser(postern, 'jana')
  const jana = await signIn(postern, 'jana')
  for (const done of ['constructor', '__proto__', 'x']) {
    const answer = await jana.request(`${postern.issuer}/account?done=${done}`)
    t.equal(answer.status, 200)
    t.notMatch(await answer.text(), /class="notice/)
  }
})

async function submitPassword(person: Person, fields: Record<string, string>) {
  const answer = await person.submit(await open(person), '/account/password', fields)
  return { status: answer.status, text: textOf(await answer.text()) }
}
