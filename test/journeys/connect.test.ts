/** The whole story on real parts: processes, official SDKs, a real browser. Nothing here knows Postern's inside. */
import t, { type Test } from 'tap'
import { decide, openBrowser, signIn, WITHOUT_BROWSER } from '../support/browser.ts'
import { listenForCallback } from '../support/callback.ts'
import { letTimePass } from '../support/database.ts'
import { startExampleServer } from '../support/example-server.ts'
import { post } from '../support/flow.ts'
import { CLIENT_PACKAGE, MemoryProvider, SDK } from '../support/mcp-client.ts'
import { freePort } from '../support/postern.ts'
import { type PosternProcess, startPosternProcess } from '../support/postern-process.ts'

const root = t

// skipped only where there is no Chromium, and says so: WITHOUT_BROWSER is the reason
t.test('a person connects an MCP client', { skip: WITHOUT_BROWSER }, async (t) => {
  const postern = await startPosternProcess(t)
  const [url, stepUpUrl] = await Promise.all([
    startNotes(t, postern),
    startNotes(t, postern, { FIRST_SCOPE: 'read' }), // tells clients to ask for the least, and for more when it is needed
  ])

  /** Asks the MCP server with a token, outside of any SDK. */
  const listNotes = (accessToken: string | undefined) =>
    fetch(url, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${accessToken}`,
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
      },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list', params: {} }),
    })

  for (const sdk of [SDK, CLIENT_PACKAGE]) {
    t.test(`${sdk.name} finds Postern, registers, works, refreshes, and stops when its grant ends`, async (t) => {
      const visitor = await openBrowser(t, root)
      const callback = await listenForCallback(t)
      const provider = new MemoryProvider(callback.redirectUri)
      let answer: URL | undefined
      const connection = await sdk.connect(url, provider, async (address) => {
        t.equal(address.searchParams.get('resource'), url)
        await visitor.page.goto(address.href)
        await signIn(visitor)
        t.match(await visitor.page.locator('main').textContent(), /Notebook.*Notes.*Read your notes.*Add notes/s)
        await decide(visitor, 'approve')
        answer = await callback.next()
        return answer
      })
      t.teardown(() => connection.close())
      t.equal(answer?.searchParams.get('iss'), postern.issuer, 'iss names the issuer (RFC 9207)')
      t.equal(answer?.searchParams.get('state'), provider.state(), 'state comes back byte for byte')

      const note = `written with ${sdk.name}`
      t.strictSame(await connection.call('notes_add', { text: note }), ['Added.'])
      t.ok((await connection.call('notes_list')).includes(note))

      const first = provider.tokens()
      await letTimePass(postern.db, Number(first?.expires_in) + 1)
      t.equal((await listNotes(first?.access_token)).status, 401)
      t.ok((await connection.call('notes_list')).includes(note), 'the SDK refreshes, and the call goes through')
      const second = provider.tokens()
      t.not(second?.refresh_token, first?.refresh_token, 'refresh tokens rotate')
      t.equal((await listNotes(second?.access_token)).status, 200)

      const client = provider.clientInformation()
      const revoked = await post(postern, '/revoke', { client_id: client?.client_id, token: second?.refresh_token })
      t.equal(revoked.status, 200)
      const refused = await listNotes(second?.access_token)
      t.equal(refused.status, 401)
      t.match(refused.headers.get('www-authenticate'), /error="invalid_token".*resource_metadata="/)
      const error = await connection.call('notes_list').then(
        () => undefined,
        (thrown) => thrown,
      )
      t.ok(sdk.isUnauthorized(error), 'the SDK asks the person once more')

      await visitor.page.goto(String(provider.authorizationUrl))
      await decide(visitor, 'approve') // the session lives on; a loopback client is asked about each time
      await connection.finish(await callback.next())
      t.ok((await connection.call('notes_list')).includes(note), 'the notes belong to the person, not to the grant')
      t.strictSame(visitor.complaints, [])
    })
  }

  t.test('a client gets the denial, with state and iss (RFC 6749 §4.1.2.1, RFC 9207 §2)', async (t) => {
    for (const sdk of [SDK, CLIENT_PACKAGE]) {
      const visitor = await openBrowser(t, root)
      const callback = await listenForCallback(t)
      const provider = new MemoryProvider(callback.redirectUri)
      let answer: URL | undefined
      const connecting = sdk.connect(url, provider, async (address) => {
        await visitor.page.goto(address.href)
        await signIn(visitor)
        await decide(visitor, 'deny')
        answer = await callback.next()
        return answer
      })
      await t.rejects(connecting, /denied/, sdk.name)
      t.match(Object.fromEntries(answer?.searchParams ?? []), {
        error: 'access_denied',
        state: provider.state(),
        iss: postern.issuer,
        code: undefined,
      })
      t.equal(provider.tokens(), undefined)
      t.strictSame(visitor.complaints, [])
    }
  })

  t.test('a client that was allowed to read asks for more when a tool needs more (MCP step-up)', async (t) => {
    const visitor = await openBrowser(t, root)
    const callback = await listenForCallback(t)
    const provider = new MemoryProvider(callback.redirectUri)
    const connection = await CLIENT_PACKAGE.connect(stepUpUrl, provider, async (address) => {
      t.equal(address.searchParams.get('scope'), 'read')
      await visitor.page.goto(address.href)
      await signIn(visitor)
      await decide(visitor, 'approve')
      return callback.next()
    })
    t.teardown(() => connection.close())
    t.strictSame(await connection.call('notes_list'), [])
    await t.rejects(connection.call('notes_add', { text: 'more' }), /Unauthorized/)
    t.equal(provider.authorizationUrl?.searchParams.get('scope'), 'read write')
    await visitor.page.goto(String(provider.authorizationUrl))
    t.match(await visitor.page.locator('main').textContent(), /Add notes.*Already allowed.*Read your notes/s)
    await decide(visitor, 'approve')
    await connection.finish(await callback.next())
    await connection.call('notes_add', { text: 'more' })
    t.strictSame(await connection.call('notes_list'), ['more'])
    t.strictSame(visitor.complaints, [])
  })

  t.test('postern doctor finds nothing wrong with the example MCP server', async (t) => {
    t.match(await postern.command(['doctor', url]), url)
  })

  t.test('an operator ends the grant, and the client has to ask again', async (t) => {
    const visitor = await openBrowser(t, root)
    const callback = await listenForCallback(t)
    const provider = new MemoryProvider(callback.redirectUri)
    const connection = await SDK.connect(url, provider, async (address) => {
      await visitor.page.goto(address.href)
      await signIn(visitor)
      await decide(visitor, 'approve')
      return callback.next()
    })
    t.teardown(() => connection.close())
    const clientId = String(provider.clientInformation()?.client_id)
    const grants = JSON.parse(await postern.command(['grant', 'list', '--client', clientId, '--json']))
    t.equal(grants.length, 1)
    await postern.command(['grant', 'revoke', grants[0].id])
    t.equal((await listNotes(provider.tokens()?.access_token)).status, 401)
    await t.rejects(connection.call('notes_list'), /Unauthorized/)
    t.equal(provider.tokens(), undefined, 'the refresh token was refused, too')
  })
})

/** The example MCP server, set up as an operator does. */
async function startNotes(t: Test, postern: PosternProcess, env: Record<string, string> = {}): Promise<string> {
  const url = `http://localhost:${await freePort()}/mcp`
  await startExampleServer(t, await postern.addResource(url), env)
  return url
}
