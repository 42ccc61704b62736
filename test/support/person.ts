import { PASSWORD } from './postern.ts'

/**
 * A person with a browser, without the browser: keeps cookies, reads forms, posts them. Pages are tested in a
 * real one in test/pages and test/journeys; this is for tests of what comes after.
 */
export class Person {
  readonly #cookies = new Map<string, string>()
  readonly #headers: Record<string, string>

  constructor(headers: Record<string, string> = {}) {
    this.#headers = headers
  }

  /** One request with the cookies; redirects are not followed. */
  async request(address: string, init: RequestInit = {}): Promise<Response> {
    const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ')
    const headers = { ...this.#headers, ...(init.headers as Record<string, string>), ...(cookie && { cookie }) }
    const response = await fetch(address, { ...init, headers, redirect: 'manual' })
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line) ?? []
      if (name === undefined || value === undefined) continue
      if (value === '') this.#cookies.delete(name)
      else this.#cookies.set(name, value)
    }
    return response
  }

  /** Posts the form of a page that posts to a path, with its hidden fields. */
  async submit(
    page: { address: string; html: string },
    path: string,
    fields: Record<string, string>,
  ): Promise<Response> {
    const form = formOf(page.html, path)
    const body = new URLSearchParams({ ...form.hidden, ...fields })
    return this.request(new URL(form.action, page.address).href, { method: 'POST', body })
  }

  /** Signs in with a password, at the sign-in page. */
  async signIn(
    issuer: string,
    { username = 'alice', password = PASSWORD }: { username?: string; password?: string } = {},
  ): Promise<Response> {
    const address = `${issuer}/login`
    const html = await (await this.request(address)).text()
    return this.submit({ address, html }, '/login', { username, password })
  }

  /** Goes from an authorization request to the answer: signs in when asked, decides when asked. */
  async authorize(
    address: string,
    {
      username = 'alice',
      password = PASSWORD,
      decision = 'approve',
    }: { username?: string; password?: string; decision?: string } = {},
  ): Promise<URL> {
    const origin = new URL(address).origin
    let next = address
    for (let step = 0; step < 8; step += 1) {
      const response = await this.request(next)
      if (response.status === 200) {
        const page = { address: next, html: await response.text() }
        const answer = page.html.includes('name="password"')
          ? await this.submit(page, '/login', { username, password })
          : await this.submit(page, '/consent', { decision })
        if (answer.status !== 303) throw new Error(`the form was answered with ${answer.status}`)
        next = new URL(answer.headers.get('location') ?? '', next).href
      } else if (response.status === 303) {
        next = new URL(response.headers.get('location') ?? '', next).href
      } else {
        throw new Error(`${new URL(next).pathname} answered ${response.status}: ${textOf(await response.text())}`)
      }
      const url = new URL(next)
      if (url.origin !== origin || url.searchParams.has('code') || url.searchParams.has('error')) return url
    }
    throw new Error('no answer after eight steps')
  }
}

/** What a page says, without its markup. */
export function textOf(html: string): string {
  return html
    .replace(/<style>[\s\S]*?<\/style>/g, '')
    .replace(/<[^>]+>/g, ' ')
    .replace(/\s+/g, ' ')
    .trim()
}

function formOf(html: string, path: string): { action: string; hidden: Record<string, string> } {
  for (const [, attributes = '', content = ''] of html.matchAll(/<form([^>]*)>([\s\S]*?)<\/form>/g)) {
    const action = decode(/action="([^"]*)"/.exec(attributes)?.[1] ?? '')
    if (!new URL(action, 'http://localhost').pathname.endsWith(path)) continue
    const hidden = content.matchAll(/<input type="hidden" name="([^"]+)" value="([^"]*)"/g)
    return { action, hidden: Object.fromEntries([...hidden].map(([, name = '', value = '']) => [name, decode(value)])) }
  }
  throw new Error(`no form that posts to ${path}`)
}

function decode(text: string): string {
  return text
    .replaceAll('&quot;', '"')
    .replaceAll('&#39;', "'")
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&amp;', '&')
}
