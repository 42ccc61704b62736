import { existsSync } from 'node:fs'
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core'
import type { Test } from 'tap'
import { PASSWORD } from './postern.ts'

/** Where Chromium or Chrome usually is; CHROMIUM_PATH comes first. */
const USUAL_PLACES = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/usr/bin/google-chrome-stable',
  '/snap/bin/chromium',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  'C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe',
  'C:\\Program Files (x86)\\Google\\Chrome\\Application\\chrome.exe',
]

const executablePath = [process.env.CHROMIUM_PATH ?? '', ...USUAL_PLACES].find(
  (path) => path !== '' && existsSync(path),
)

/** For a test's `skip`: the reason when there is no browser on this machine, otherwise false. */
export const WITHOUT_BROWSER: string | false =
  executablePath === undefined &&
  'no Chromium or Chrome was found on this machine: install one, or name it in CHROMIUM_PATH'

/** A person at a browser of their own: no cookies yet. */
export interface Visitor {
  context: BrowserContext
  page: Page
  /** everything that the browser complained about: errors in its console, broken rules of a content security policy */
  complaints: string[]
}

const TELL_VIOLATIONS = `document.addEventListener('securitypolicyviolation', (event) => {
  console.error('policy violated: ' + event.violatedDirective + ' by ' + event.blockedURI)
})`

let running: Promise<Browser> | undefined

/**
 * Opens a new, empty browser profile. The browser itself is started once for each test file.
 *
 * @param root the file's outermost test: the browser ends with it
 */
export async function openBrowser(t: Test, root: Test, { javaScript = true } = {}): Promise<Visitor> {
  if (executablePath === undefined) throw new Error(String(WITHOUT_BROWSER))
  if (running === undefined) {
    running = chromium.launch({
      executablePath,
      args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'], // without the sandbox it also runs as root
    })
    root.teardown(async () => (await running)?.close())
  }
  const context = await (await running).newContext({ ignoreHTTPSErrors: true, javaScriptEnabled: javaScript })
  t.teardown(() => context.close())
  const page = await context.newPage()
  page.setDefaultTimeout(20_000)
  const complaints: string[] = []
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text())
  })
  page.on('pageerror', (error) => complaints.push(error.message))
  await page.addInitScript({ content: TELL_VIOLATIONS })
  return { context, page, complaints }
}

/** Fills in the sign-in page and sends it. */
export async function signIn({ page }: Visitor, username = 'alice', password = PASSWORD): Promise<void> {
  await page.getByLabel('Username').fill(username)
  await page.getByLabel('Password').fill(password)
  await page.getByRole('button', { name: 'Sign in' }).click()
}

/** Presses a button of the consent page. */
export async function decide({ page }: Visitor, decision: 'approve' | 'deny'): Promise<void> {
  await page.locator(`button[name="decision"][value="${decision}"]`).click()
}
