/**
 * The way back to the client, in a real browser: Chromium applies a page's policies to the redirects after its
 * form was sent, and to the windows that opened it. No test without a browser can see that.
 */
import t, { type Test } from 'tap'
import { decide, openBrowser, signIn, type Visitor, WITHOUT_BROWSER } from '../support/browser.ts'
import { listenForCallback } from '../support/callback.ts'
import { authorizeUrl, type FlowClient, pkce, redeem } from '../support/flow.ts'
import { addClient, startTestPostern } from '../support/postern.ts'

const root = t

// skipped only where there is no Chromium, and says so: WITHOUT_BROWSER is the reason
t.test('the browser goes back to the client', { skip: WITHOUT_BROWSER }, async (t) => {
  const postern = await startTestPostern(t)

  for (const [kind, method, tls] of [
    ['a confidential client on http://localhost', 'client_secret_basic', false],
    ['a public client on https', 'none', true],
  ] as const) {
    t.test(`${kind}: from the consent form, and from the sign-in form when consent is remembered`, async (t) => {
      const callback = await listenForCallback(t, { tls })
      const client = await addClient(postern, { redirectUris: [callback.redirectUri], tokenEndpointAuthMethod: method })
      const { verifier, challenge } = pkce()
      const address = authorizeUrl(postern, client, challenge)
      const first = await openBrowser(t, root)
      await first.page.goto(address)
      await signIn(first)
      await decide(first, 'approve')
      const code = await codeFrom(t, callback.next())
      t.equal((await redeem(postern, client, { code, verifier })).status, 200)

      await first.page.goto(address)
      await codeFrom(t, callback.next(), 'nothing is asked')

      const second = await openBrowser(t, root)
      await second.page.goto(address)
      await signIn(second)
      await codeFrom(t, callback.next(), 'the sign-in form ends at the client')
      await second.page.waitForURL(`${callback.redirectUri}*`)
      t.strictSame([...first.complaints, ...second.complaints], [])
    })
  }

  t.test('a denial goes back to an https client', async (t) => {
    const callback = await listenForCallback(t, { tls: true })
    const client = await addClient(postern, { redirectUris: [callback.redirectUri] })
    const visitor = await openBrowser(t, root)
    await visitor.page.goto(authorizeUrl(postern, client, pkce().challenge))
    await signIn(visitor)
    await decide(visitor, 'deny')
    t.equal((await callback.next()).searchParams.get('error'), 'access_denied')
    t.strictSame(visitor.complaints, [])
  })

  t.test('an application with a scheme of its own is opened (Cursor)', async (t) => {
    const client = await addClient(postern, { redirectUris: ['cursor://anysphere.cursor-mcp/oauth/callback'] })
    const visitor = await openBrowser(t, root)
    await visitor.page.goto(authorizeUrl(postern, client, pkce().challenge))
    await signIn(visitor)
    await visitor.page.getByRole('button', { name: 'Allow' }).waitFor()
    const opened = visitor.page.waitForRequest(/^cursor:/)
    await decide(visitor, 'approve')
    t.match((await opened).url(), /^cursor:\/\/anysphere\.cursor-mcp\/oauth\/callback\?code=/)
    t.strictSame(
      visitor.complaints.filter((complaint) => /policy/i.test(complaint)),
      [],
    )
  })

  t.test('a client that opened a popup is still reached from it (no Cross-Origin-Opener-Policy)', async (t) => {
    const callback = await listenForCallback(t)
    const client = await addClient(postern, { redirectUris: [callback.redirectUri] })
    const visitor = await openBrowser(t, root)
    await visitor.page.goto(new URL('/', callback.redirectUri).href)
    const popup = await openPopup(visitor, authorizeUrl(postern, client, pkce().challenge))
    await signIn(popup)
    await decide(popup, 'approve')
    await codeFrom(t, callback.next())
    await popup.page.waitForURL(`${callback.redirectUri}*`)
    t.equal(await popup.page.evaluate('window.opener !== null'), true)
    t.strictSame([...visitor.complaints, ...popup.complaints], [])
  })

  t.test('two clicks on Allow give two redirects, each with a code that works', async (t) => {
    const callback = await listenForCallback(t)
    const client: FlowClient = await addClient(postern, { redirectUris: [callback.redirectUri] })
    const { verifier, challenge } = pkce()
    const visitor = await openBrowser(t, root)
    await visitor.page.goto(authorizeUrl(postern, client, challenge))
    await signIn(visitor)
    const posted = visitor.page.waitForRequest(
      (request) => request.method() === 'POST' && /consent/.test(request.url()),
    )
    await decide(visitor, 'approve')
    const codes = [await codeFrom(t, callback.next())]
    const again = await visitor.context.request.post((await posted).url(), {
      data: (await posted).postData() ?? '',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      maxRedirects: 0,
    })
    t.equal(again.status(), 303)
    codes.push(String(new URL(again.headers().location ?? '').searchParams.get('code')))
    for (const code of codes) t.equal((await redeem(postern, client, { code, verifier })).status, 200)
  })
})

async function codeFrom(t: Test, arrival: Promise<URL>, message = 'a code arrives'): Promise<string> {
  const code = (await arrival).searchParams.get('code')
  t.type(code, 'string', message)
  return String(code)
}

async function openPopup(visitor: Visitor, address: string): Promise<Visitor> {
  const [page] = await Promise.all([
    visitor.page.waitForEvent('popup'),
    visitor.page.evaluate(`void window.open(${JSON.stringify(address)}, 'popup', 'width=500,height=700')`),
  ])
  return { context: visitor.context, page, complaints: visitor.complaints }
}
