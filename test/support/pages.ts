import type { Page } from 'playwright-core'
import type { Test } from 'tap'
import { setIdentityProviderDisabled } from '../../src/store/identity-provider.ts'
import { allowResourceUpstream } from '../../src/store/resource-upstream.ts'
import { issueSetupLink } from '../../src/users/create.ts'
import { signIn, type Visitor } from './browser.ts'
import { authorizeUrl, obtainTokens, pkce, post } from './flow.ts'
import { Person } from './person.ts'
import { addClient, addUser, PASSWORD, RESOURCE, startTestPostern, type TestPostern } from './postern.ts'
import { addUpstream, connectUpstream } from './upstream-provider.ts'

/** A logo as an organisation may have one. */
const LOGO = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 56"><rect width="56" height="56" rx="12" fill="#c2410c"/>
<path d="M16 40V16l24 24V16" fill="none" stroke="#fff" stroke-width="6"/></svg>`

const PHONE = 'Mozilla/5.0 (Android 15; Mobile; rv:144.0) Gecko/144.0 Firefox/144.0'
const DEVICE_CODE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code'

/** Looks at the page that is open now. `name` is short, and good for a file; `title` tells which page it is. */
export type See = (name: string, title: string) => Promise<void>

/** Brings a browser to every page that a person may see, with the problems that are shown on them. */
export async function walkPages(t: Test, visitor: Visitor, see: See): Promise<void> {
  const postern = await startTestPostern(t, { encryptionKey: 'a key for the tests of the pages, long enough' })
  await postern.db.updateTable('resource').set({ name: 'Notes' }).execute()
  await walkSignIn(t, postern, visitor, see)
  await walkConsent(postern, visitor, see)
  await walkDevice(postern, visitor, see)
  await walkAccount(postern, visitor, see)
  await walkErrors(postern, visitor, see)
  await walkSetup(t, visitor, see)
}

async function walkSignIn(t: Test, postern: TestPostern, visitor: Visitor, see: See): Promise<void> {
  const { page, context } = visitor
  const address = `${postern.issuer}/login`
  const accounts = { s1: { preferred_username: 'anna', email: 'anna@example.com' } }
  await page.goto(await askedBy(postern, 'Example App'))
  await see('sign-in', 'Signing in, on the way to an application')
  await go(page, () => signIn(visitor, 'alice', 'a wrong guess'))
  await see('sign-in-wrong', 'Signing in, with a wrong password')
  const upstream = await connectUpstream(t, postern, accounts, { name: 'Example Company' })
  await page.goto(address)
  await see('sign-in-provider', 'Signing in, with an identity provider or a password')
  await go(page, () => page.getByRole('button', { name: 'Continue with Example Company' }).click())
  await go(page, () => page.getByRole('button', { name: 'Cancel' }).click())
  await see('sign-in-denied', 'Signing in, after a person said no at the identity provider')
  await addUpstream(postern, upstream, { id: 'github', name: 'GitHub' })
  postern.context.config.passwordSignIn = false
  await page.goto(address)
  await see('sign-in-providers', 'Signing in, with identity providers alone')
  for (const id of ['github', 'company']) await setIdentityProviderDisabled(postern.db, id, true)
  await page.goto(address)
  await see('sign-in-nobody', 'Signing in, when there is no way to')
  await setIdentityProviderDisabled(postern.db, 'company', false)
  postern.context.config.passwordSignIn = true
  await context.clearCookies()
}

async function walkConsent(postern: TestPostern, visitor: Visitor, see: See): Promise<void> {
  const { page } = visitor
  await page.goto(await askedBy(postern, 'Example App'))
  await go(page, () => signIn(visitor))
  await see('consent', 'The question whether an application gets access')
  await visitor.context.clearCookies({ name: /-form-/ }) // with which the page was made
  await go(page, () => page.getByRole('button', { name: 'Allow' }).click())
  await see('consent-expired', 'The question once more, since the page was open for too long')
  await page.goto(await askedBy(postern, 'Example Editor', 'http://127.0.0.1/callback'))
  await see('consent-local', 'The question about an application on this computer')
  const { id } = await postern.db.selectFrom('resource').select('id').executeTakeFirstOrThrow()
  await allowResourceUpstream(postern.db, { resourceId: id, providerId: 'company' }, true)
  const client = await addClient(postern, {
    redirectUris: ['https://assistant.example/callback'],
    name: 'Example Assistant',
  })
  await obtainTokens(postern, client, { scope: 'read' })
  await page.goto(authorizeUrl(postern, client, pkce().challenge))
  await see('consent-upstream', 'The question for more, with a resource server that may act at the identity provider')
}

async function walkDevice(postern: TestPostern, { page }: Visitor, see: See): Promise<void> {
  const client = await addClient(postern, {
    redirectUris: [],
    grantTypes: [DEVICE_CODE_GRANT],
    name: 'Example Television',
  })
  const open = async () => {
    const { body } = await post(postern, '/device_authorization', { client_id: client.client_id, resource: RESOURCE })
    await page.goto(String(body.verification_uri_complete))
  }
  await page.goto(`${postern.issuer}/device`)
  await see('device', 'Where the code of a device is entered')
  await page.getByLabel('Code').fill('BBBB-BBBB')
  await go(page, () => page.getByRole('button', { name: 'Continue' }).click())
  await see('device-wrong', 'A wrong code')
  for (const [button, name, title] of [
    ['Allow', 'device-connected', 'A device that was connected'],
    ['Deny', 'device-refused', 'A device that was refused'],
  ] as const) {
    await open()
    await go(page, () => page.getByRole('button', { name: 'Continue' }).click())
    if (button === 'Allow') await see('device-consent', 'The question whether a device gets access')
    await go(page, () => page.getByRole('button', { name: button }).click())
    await see(name, title)
  }
}

async function walkAccount(postern: TestPostern, visitor: Visitor, see: See): Promise<void> {
  const { page } = visitor
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'], name: 'Example App' })
  const phone = new Person({ 'user-agent': PHONE })
  await obtainTokens(postern, client, {}, phone)
  await page.goto(`${postern.issuer}/account`)
  await go(page, () => page.getByRole('button', { name: 'Link an account of Example Company' }).click())
  await go(page, () => page.getByRole('button', { name: 'Continue' }).click())
  await see('account-linked', 'The account page, after an account was linked')
  await page.goto(`${postern.issuer}/account`)
  await see('account', 'The account page')
  await page.getByLabel('Current password').fill('a wrong guess')
  await page.getByLabel('New password').fill(PASSWORD)
  await go(page, () => page.getByRole('button', { name: 'Change password' }).click())
  await see('account-wrong', 'The account page, after a wrong current password')
  await go(page, () => page.getByRole('button', { name: 'Disconnect Example App' }).first().click())
  await see('confirm-disconnect', 'Before an application loses its access')
  await go(page, () => page.getByRole('link', { name: 'Cancel' }).click())
  await go(page, () => page.getByRole('button', { name: 'Unlink Example Company' }).click())
  await see('confirm-unlink', 'Before an account is unlinked')
  await page.goto(`${postern.issuer}/account`)
  await go(page, () => page.getByRole('button', { name: 'Sign out', exact: true }).click())
  await see('signed-out', 'After signing out')
  await addUser(postern, 'bob')
  await page.goto(`${postern.issuer}/account`)
  await go(page, () => signIn(visitor, 'bob'))
  await see('account-new', 'The account page of somebody who is new')
}

async function walkErrors(postern: TestPostern, { page }: Visitor, see: See): Promise<void> {
  await page.goto(`${postern.issuer}/authorize?client_id=nobody`)
  await see('error-client', 'An application that is not registered')
  await page.goto(`${postern.issuer}/login/company/callback?state=x&code=x`)
  await see('error-sign-in', 'A sign-in that began elsewhere')
  await page.goto(`${postern.issuer}/nothing`)
  await see('error-address', 'An address at which there is nothing')
}

async function walkSetup(t: Test, visitor: Visitor, see: See): Promise<void> {
  const { page } = visitor
  const logo = `data:image/svg+xml;base64,${Buffer.from(LOGO).toString('base64')}`
  const postern = await startTestPostern(t, {}, { bare: true })
  const own = await startTestPostern(t, { name: 'Example Company', logo, accentColor: '#f97316' })
  await own.db.updateTable('resource').set({ name: 'Notes' }).execute()
  await page.goto(await issueSetupLink(postern.context))
  await see('setup', 'The first administrator')
  await page.getByLabel('Username').fill('two words')
  await page.getByLabel('Password').fill(PASSWORD)
  await go(page, () => page.getByRole('button', { name: 'Create administrator' }).click())
  await see('setup-wrong', 'The first administrator, with a name that can’t be one')
  await page.getByLabel('Username').fill('alice')
  await page.getByLabel('Password').fill(PASSWORD)
  await go(page, () => page.getByRole('button', { name: 'Create administrator' }).click())
  await see('next-steps', 'What an administrator does next')
  await page.goto(await askedBy(postern, 'Example App'))
  await see('error-resource', 'Nothing to connect to, with advice for who runs the service')
  await page.goto(await askedBy(own, 'Example App'))
  await go(page, () => signIn(visitor))
  await see('own-looks', 'A logo and a colour of one’s own')
}

/** Leaves the page that is open, and waits for the next one. */
async function go(page: Page, leave: () => Promise<void>): Promise<void> {
  await Promise.all([page.waitForEvent('load'), leave()])
}

/** The address to which an application sends the browser. */
async function askedBy(postern: TestPostern, name: string, redirectUri = 'https://app.example/callback') {
  return authorizeUrl(postern, await addClient(postern, { redirectUris: [redirectUri], name }), pkce().challenge)
}
