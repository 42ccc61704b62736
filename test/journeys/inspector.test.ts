/** A client that is a web page (MCP Inspector): the browser itself judges every answer by its CORS headers. */
import t from 'tap'
import { decide, openBrowser, signIn, WITHOUT_BROWSER } from '../support/browser.ts'
import { serveBrowserClient } from '../support/browser-client.ts'
import { letTimePass } from '../support/database.ts'
import { startExampleServer } from '../support/example-server.ts'
import { addResource, freePort, startTestPostern } from '../support/postern.ts'

const root = t

// skipped only where there is no Chromium, and says so: WITHOUT_BROWSER is the reason
t.test('a web page connects with the official SDK, and refreshes', { skip: WITHOUT_BROWSER }, async (t) => {
  const postern = await startTestPostern(t)
  const url = `http://localhost:${await freePort()}/mcp`
  const { id, secret } = await addResource(postern, url, [
    { name: 'read', description: 'Read your notes' },
    { name: 'write', description: 'Add notes' },
  ])
  await startExampleServer(t, {
    client_id: id,
    client_secret: secret,
    protected_resource_metadata: { resource: url, authorization_servers: [postern.issuer] },
  })
  const origin = await serveBrowserClient(t)
  const visitor = await openBrowser(t, root)
  const { page } = visitor
  /** Calls a function of the page. */
  const app = (call: string) => page.evaluate(`window.app.${call}`)
  const loaded = () => page.waitForFunction('window.app !== undefined')

  await page.goto(origin)
  await loaded()
  const authorize = String(await app(`connect('${url}')`))
  t.ok(authorize.startsWith(`${postern.issuer}/authorize?`), 'metadata and registration answer to another origin')

  await page.goto(authorize)
  await signIn(visitor)
  await decide(visitor, 'approve')
  await page.waitForURL(`${origin}/oauth/callback?*`)
  await loaded()
  t.equal(await app(`connect('${url}')`), undefined, 'the token endpoint answers to another origin')
  t.strictSame(await app(`call('notes_add', { text: 'from a page' })`), ['Added.'])

  const before = (await app('tokens()')) as { access_token: string; expires_in: number }
  await letTimePass(postern.db, before.expires_in + 1)
  t.strictSame(await app(`call('notes_list')`), ['from a page'])
  t.not(((await app('tokens()')) as typeof before).access_token, before.access_token)

  // Chromium reports each answer that is an error; only the MCP server's 401s belong here.
  const unexpected = visitor.complaints.filter((complaint) => !/status of (401|405)/.test(complaint))
  t.strictSame(unexpected, [])
})
