/** examples/device-client as a process of its own, and the person who decides, in a real browser without JavaScript. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openBrowser, type Visitor, WITHOUT_BROWSER } from '../support/browser.ts'
import { type RunningProgram, runProgram, startProgram } from '../support/child-process.ts'
import { letTimePass } from '../support/database.ts'
import { freePort, PASSWORD } from '../support/postern.ts'
import { startPosternProcess } from '../support/postern-process.ts'

const PROGRAM = join(import.meta.dirname, '..', '..', '..', 'examples', 'device-client', 'client.js')
const DEVICE_CODE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code'
const RESOURCE = 'https://notes.example/mcp'

const root = t
t.jobs = 3 // most of the time of each test is waiting for the next poll

/** Starts the program, and reads what it shows to the person. */
async function startDevice(t: Test, args: string[]) {
  const program = await startProgram(t, PROGRAM, { args, ready: (line) => line.startsWith('Waiting for you') })
  const ended = once(program.process, 'close')
  const link = program.lines.map((line) => line.trim()).find((line) => line.includes('user_code='))
  const code = program.lines.map((line) => line.trim()).find((line) => /^[A-Z]{4}-[A-Z]{4}$/.test(line))
  if (link === undefined || code === undefined) throw new Error(program.lines.join('\n'))
  return { program, ended, link, code }
}

/** Presses Tab until a button has the focus, and then Enter. */
async function pressButton({ page }: Visitor, name: string): Promise<void> {
  await page.getByRole('button', { name, exact: true }).waitFor()
  for (let tabs = 0; tabs < 10; tabs += 1) {
    if ((await page.locator('button:focus').allTextContents()).includes(name)) return page.keyboard.press('Enter')
    await page.keyboard.press('Tab')
  }
  throw new Error(`the keyboard does not reach ${name}`)
}

/** Opens the link, signs in if asked, and goes on to the question; by keyboard alone. */
async function openLink(visitor: Visitor, link: string, { signedIn = false } = {}): Promise<void> {
  const { page } = visitor
  await page.goto(link)
  if (!signedIn) {
    await page.locator('#username:focus').waitFor()
    await page.keyboard.type('alice')
    await page.keyboard.press('Tab')
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press('Enter')
  }
  await page.locator('#user-code:focus').waitFor()
  await page.keyboard.press('Enter') // the code is filled in
  await page.getByRole('heading', { name: 'Allow access?' }).waitFor()
}

const errorsOf = (program: RunningProgram) => program.process.stderr?.setEncoding('utf8').toArray()

// skipped only where there is no Chromium, and says so: WITHOUT_BROWSER is the reason
t.test('a person decides about a device in a browser elsewhere', { skip: WITHOUT_BROWSER }, async (t) => {
  const postern = await startPosternProcess(t)
  await postern.addResource(RESOURCE)
  const grants = ['--grant', DEVICE_CODE_GRANT, '--grant', 'refresh_token']
  const added = await postern.command([
    'client',
    'add',
    '--name',
    'Television',
    '--auth-method',
    'none',
    ...grants,
    '--json',
  ])
  const args = ['--issuer', postern.issuer, '--client-id', JSON.parse(added).client_id]

  // all at once: each of them asks every five seconds
  const [allowed, denied, forgotten] = await Promise.all([
    startDevice(t, [...args, '--resource', RESOURCE, '--scope', 'read']),
    startDevice(t, args),
    startDevice(t, args),
  ])
  const [denial, expiry] = [errorsOf(denied.program), errorsOf(forgotten.program)]
  const visitor = await openBrowser(t, root, { javaScript: false })

  t.test('who allows it lets the program have its tokens, which it keeps to itself', async (t) => {
    await openLink(visitor, allowed.link)
    const question = String(await visitor.page.locator('main').textContent())
    t.match(question, /Television.*Notes.*Read your notes/s)
    t.match(question, allowed.code, 'for comparing (RFC 8628 §3.3.1)')
    t.notMatch(question, 'Add notes')
    await pressButton(visitor, 'Allow')
    await visitor.page.getByRole('heading', { name: 'Device connected' }).waitFor()
    t.strictSame((await allowed.ended)[0], 0)
    const output = allowed.program.lines.join('\n')
    t.match(output, /▀.*\n.*█/, 'with a picture of the link')
    t.match(output, /Allowed.*scope: +read\n.*expires: +in 60 minutes\n/s)
    t.notMatch(output, /postern_(at|rt)_/)
  })

  t.test('who denies it makes the program end with 1, and say so', async (t) => {
    await openLink(visitor, denied.link, { signedIn: true })
    await pressButton(visitor, 'Deny')
    await visitor.page.getByRole('heading', { name: 'Device refused' }).waitFor()
    t.strictSame((await denied.ended)[0], 1)
    t.match((await denial)?.join(''), 'was denied')
  })

  t.test('a code that nobody opens ends the program, too', async (t) => {
    await letTimePass(postern.db, 601)
    t.strictSame((await forgotten.ended)[0], 1)
    t.match((await expiry)?.join(''), 'has expired')
  })

  t.test('the browser had nothing to complain about', async (t) => t.strictSame(visitor.complaints, []))

  t.test('a mistake is said in one line', async (t) => {
    const [unknownClient, unknownResource] = await Promise.all([
      runProgram(PROGRAM, { args: ['--issuer', postern.issuer, '--client-id', 'nobody'] }),
      runProgram(PROGRAM, { args: [...args, '--resource', 'https://elsewhere.example/'] }),
    ])
    t.match(unknownClient, { code: 1, errors: /^The server does not know this client\..*\n$/ })
    t.match(unknownResource, { code: 1, errors: /^The server does not know this resource.*\n$/ })
  })
})

t.test('the device client explains itself, and says when the server is away', async (t) => {
  const [help, nothing, away] = await Promise.all([
    runProgram(PROGRAM, { args: ['--help'] }),
    runProgram(PROGRAM, {}),
    runProgram(PROGRAM, { args: ['--issuer', `http://localhost:${await freePort()}`, '--client-id', 'x'] }),
  ])
  t.match(help, { code: 0, output: /^Usage: / })
  t.match(nothing, { code: 2, errors: /^--client-id is missing\n\nUsage: / })
  t.match(away, { code: 1, errors: /^The server does not answer\..*\n$/ })
})

t.test('the device client bears a server that is away, and slows down when told (RFC 8628 §3.5)', async (t) => {
  const polledAt: number[] = []
  const server = createServer((request, response) => {
    const send = (status: number, body: object) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
    if (request.url === '/.well-known/oauth-authorization-server') {
      const [token_endpoint, device_authorization_endpoint] = [`${issuer}/token`, `${issuer}/device_authorization`]
      return send(200, { issuer, token_endpoint, device_authorization_endpoint })
    }
    if (request.url === '/device_authorization') {
      const codes = { device_code: 'd', user_code: 'BBBB-CCCC', verification_uri: `${issuer}/device` }
      return send(200, { ...codes, expires_in: 600, interval: 0.2 })
    }
    polledAt.push(performance.now())
    if (polledAt.length === 1) return request.socket.destroy()
    if (polledAt.length === 2) return send(503, { error: 'temporarily_unavailable' })
    if (polledAt.length === 3) return send(400, { error: 'slow_down' })
    return send(200, { access_token: 'secret-token', token_type: 'Bearer', expires_in: 60 })
  }).listen(0, 'localhost')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const issuer = `http://localhost:${(server.address() as AddressInfo).port}`

  const { code, output } = await runProgram(PROGRAM, {
    args: ['--issuer', issuer, '--client-id', 'x', '--print-token'],
  })
  t.equal(code, 0)
  t.match(output, '"access_token": "secret-token"', 'printed when it was asked for')
  t.equal(polledAt.length, 4)
  const [first = 0, second = 0, third = 0, fourth = 0] = polledAt
  t.ok(second - first >= 390, `${second - first} ms after a broken connection`)
  t.ok(third - second >= 790, `${third - second} ms after a 503: ever more rarely`)
  t.ok(fourth - third >= 5000, `${fourth - third} ms after slow_down`)
})
