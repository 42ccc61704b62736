/** People who use the keyboard alone, in a real browser without JavaScript. What they do with a device is in device-client.test.ts. */
import type { Page } from 'playwright-core'
import t from 'tap'
import { openBrowser, WITHOUT_BROWSER } from '../support/browser.ts'
import { listenForCallback } from '../support/callback.ts'
import { authorizeUrl, obtainTokens, pkce } from '../support/flow.ts'
import { addClient, countRows, PASSWORD, startTestPostern } from '../support/postern.ts'
import { connectUpstream } from '../support/upstream-provider.ts'

const NEW_PASSWORD = 'a new horse, another battery'

const root = t

t.test(
  'everything can be done with the keyboard alone, and without JavaScript',
  // skipped only where there is no Chromium, and says so: WITHOUT_BROWSER is the reason
  { skip: WITHOUT_BROWSER },
  async (t) => {
    const postern = await startTestPostern(t, { encryptionKey: 'a key for the tests of the keyboard, long enough' })
    await connectUpstream(t, postern, { s1: { preferred_username: 'anna' } })
    const callback = await listenForCallback(t)
    const client = await addClient(postern, { redirectUris: [callback.redirectUri], name: 'Example App' })
    const visitor = await openBrowser(t, root, { javaScript: false })
    const { page } = visitor

    t.test('sign-in and consent, of which Deny is the nearer', async (t) => {
      await page.goto(authorizeUrl(postern, client, pkce().challenge))
      await tabTo(page, 'Username')
      await page.keyboard.type('alice')
      await page.keyboard.press('Tab')
      await page.keyboard.type(PASSWORD)
      await pressAndGo(page, 'Enter')
      await tabTo(page, 'Use another account')
      await tabTo(page, 'Deny')
      await tabTo(page, 'Allow')
      await pressAndGo(page, 'Enter')
      t.ok((await callback.next()).searchParams.get('code'))
    })

    t.test('an application is disconnected, after a question that can be left', async (t) => {
      await obtainTokens(postern, client)
      await page.goto(`${postern.issuer}/account`)
      await press(page, 'Disconnect Example App')
      await press(page, 'Cancel')
      t.equal(await countGrants(postern), 1)
      await press(page, 'Disconnect Example App')
      await press(page, 'Disconnect')
      t.equal(await page.getByRole('status').textContent(), 'The application is no longer connected.')
      t.equal(await countGrants(postern), 0)
    })

    t.test('other browsers are signed out', async (t) => {
      t.equal(await countRows(postern, 'session'), 2)
      await press(page, 'Sign out everywhere else')
      t.equal(await countRows(postern, 'session'), 1)
    })

    t.test('the password is changed', async (t) => {
      await tabTo(page, 'Current password')
      await page.keyboard.type(PASSWORD)
      await page.keyboard.press('Tab')
      await page.keyboard.type(NEW_PASSWORD)
      await pressAndGo(page, 'Enter')
      t.match(await page.getByRole('status').textContent(), 'Your password is changed')
    })

    t.test('an account is linked and unlinked', async (t) => {
      await press(page, 'Link an account of Company')
      await press(page, 'Continue')
      t.match(await page.getByRole('status').textContent(), 'The account is linked')
      await press(page, 'Unlink Company')
      await press(page, 'Unlink')
      t.match(await page.getByRole('status').textContent(), 'no longer linked')
    })

    t.test('a provider signs in who has signed out', async (t) => {
      await press(page, 'Sign out')
      await press(page, 'Sign in again')
      await press(page, 'Continue with Company') // where the person is still signed in
      t.match(await page.locator('main').textContent(), /Signed in as\s+anna/)
    })

    t.test('the browser had nothing to complain about', async (t) => t.strictSame(visitor.complaints, []))
  },
)

/** Presses Tab until what has this name has the focus, and lets see that it has. */
async function tabTo(page: Page, name: string): Promise<void> {
  const wanted = page.getByRole('button', { name }).or(page.getByRole('link', { name })).or(page.getByLabel(name))
  for (let tabs = 0; tabs < 40; tabs += 1) {
    if ((await wanted.and(page.locator(':focus-visible')).count()) > 0) return
    await page.keyboard.press('Tab')
  }
  throw new Error(`the keyboard does not reach ${name}`)
}

async function press(page: Page, name: string): Promise<void> {
  await tabTo(page, name)
  await pressAndGo(page, 'Enter')
}

/** Presses a key that leaves the page, and waits for the next one. */
async function pressAndGo(page: Page, key: string): Promise<void> {
  await Promise.all([page.waitForEvent('load'), page.keyboard.press(key)])
}

async function countGrants({ db }: { db: Awaited<ReturnType<typeof startTestPostern>>['db'] }): Promise<number> {
  const rows = await db.selectFrom('token_family').select('id').where('revoked_at', 'is', null).execute()
  return rows.length
}
