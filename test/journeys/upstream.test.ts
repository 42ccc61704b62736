/** A connector connects, and the person signs in with the company's identity provider: processes, SDKs, a browser. */
import t, { type Test } from 'tap'
import { openBrowser, type Visitor, WITHOUT_BROWSER } from '../support/browser.ts'
import { listenForCallback } from '../support/callback.ts'
import { startExampleServer } from '../support/example-server.ts'
import { CLIENT_PACKAGE, MemoryProvider, SDK } from '../support/mcp-client.ts'
import { freePort } from '../support/postern.ts'
import { type PosternProcess, startPosternProcess } from '../support/postern-process.ts'
import { startUpstreamProvider, type UpstreamProvider } from '../support/upstream-provider.ts'

const root = t
const SETTINGS = {
  POSTERN_ENCRYPTION_KEY: 'of the tests, at least 32 characters',
  POSTERN_PASSWORD_SIGN_IN: 'off',
}

// skipped only where there is no Chromium, and says so: WITHOUT_BROWSER is the reason
t.test('a person of a company connects an MCP client', { skip: WITHOUT_BROWSER }, async (t) => {
  const postern = await startPosternProcess(t, SETTINGS)
  const redirectUris = [`${postern.issuer}/login/company/callback`]
  const accounts = { 'subject-1': { preferred_username: 'zoe', email: 'zoe@example.com', email_verified: true } }
  const upstream = await startUpstreamProvider(t, { redirectUris, accounts })
  const [url] = await Promise.all([startNotes(t, postern), addCompany(postern, upstream)])

  for (const [n, sdk] of [SDK, CLIENT_PACKAGE].entries()) {
    t.test(`with ${sdk.name}, by keyboard and without JavaScript`, async (t) => {
      const visitor = await openBrowser(t, root, { javaScript: false })
      const callback = await listenForCallback(t)
      const provider = new MemoryProvider(callback.redirectUri)
      let answer: URL | undefined
      const connection = await sdk.connect(url, provider, async (address) => {
        await visitor.page.goto(address.href)
        t.equal(await visitor.page.getByLabel('Password').count(), 0)
        await pressButton(visitor, 'Continue with Example Inc.')
        await visitor.page.waitForURL((at) => at.origin === upstream.issuer)
        t.match(await visitor.page.content(), 'value="subject-1"')
        await pressButton(visitor, 'Continue')
        await visitor.page.waitForURL((at) => at.origin === postern.issuer)
        t.match(await visitor.page.locator('main').textContent(), /Notes.*Read your notes.*Add notes/s)
        await pressButton(visitor, 'Allow')
        answer = await callback.next()
        return answer
      })
      t.teardown(() => connection.close())
      t.equal(answer?.searchParams.get('iss'), postern.issuer)
      t.equal(answer?.searchParams.get('state'), provider.state())
      t.strictSame(await connection.call('notes_add', { text: `note ${n}` }), ['Added.'])
      t.ok((await connection.call('notes_list')).includes(`note ${n}`))
      if (n > 0) t.ok((await connection.call('notes_list')).includes('note 0'), 'the same person as before')
      t.strictSame(visitor.complaints, [])
    })
  }

  t.test('who says no at the provider is brought back to the client', async (t) => {
    const visitor = await openBrowser(t, root)
    const callback = await listenForCallback(t)
    const provider = new MemoryProvider(callback.redirectUri)
    let answer: URL | undefined
    const connecting = SDK.connect(url, provider, async (address) => {
      await visitor.page.goto(address.href)
      await pressButton(visitor, 'Continue with Example Inc.')
      await pressButton(visitor, 'Cancel')
      answer = await callback.next()
      return answer
    })
    await t.rejects(connecting, /denied|did not sign in/)
    const facts = { error: 'access_denied', state: provider.state(), iss: postern.issuer, code: undefined }
    t.match(Object.fromEntries(answer?.searchParams ?? []), facts)
    t.strictSame(visitor.complaints, [])
  })

  t.test('nothing of the provider’s is in the log', async (t) => {
    const log = postern.server.lines.join('\n')
    t.match(log, '"event":"user_created"')
    t.notMatch(log, upstream.clientSecret)
    t.notMatch(log, /[?&](code|state)=/)
    t.same([...upstream.tokenRequests.keys()], ['authorization_code'])
  })
})

/** Goes to a button with the Tab key, and presses it with Enter. */
async function pressButton({ page }: Visitor, name: string | RegExp): Promise<void> {
  const button = page.getByRole('button', { name })
  await button.waitFor()
  for (let presses = 0; presses < 20; presses += 1) {
    if (await button.evaluate((element) => element.matches(':focus'))) {
      await page.keyboard.press('Enter')
      return
    }
    await page.keyboard.press('Tab')
  }
  throw new Error(`the Tab key does not lead to ${name}`)
}

/** Adds the provider as an operator does. */
async function addCompany(postern: PosternProcess, upstream: UpstreamProvider): Promise<void> {
  const facts = ['--preset', 'generic', '--issuer', upstream.issuer, '--client-id', upstream.clientId]
  const policy = ['--create-users', '--allow-domain', 'example.com', '--name', 'Example Inc.']
  await postern.command(['provider', 'add', 'company', ...facts, ...policy], `${upstream.clientSecret}\n`)
}

async function startNotes(t: Test, postern: PosternProcess): Promise<string> {
  const url = `http://localhost:${await freePort()}/mcp`
  await startExampleServer(t, await postern.addResource(url))
  return url
}
