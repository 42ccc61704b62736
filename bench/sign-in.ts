import { PERSON, REDIRECT_URI } from './accounts.ts'

/**
 * A browser without a window: follows an authorization request to its end, signs in and agrees where a page asks.
 *
 * @returns its cookies, as the header that it would send
 */
export async function signIn(address: string, person = { ...PERSON }): Promise<string> {
  const cookies = new Map<string, string>()
  const header = () => [...cookies].map(([name, value]) => `${name}=${value}`).join('; ')
  const request = async (url: string, body?: URLSearchParams) => {
    const posted = body === undefined ? {} : { method: 'POST', body }
    const answer = await fetch(url, { ...posted, headers: { cookie: header() }, redirect: 'manual' })
    for (const line of answer.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(line) ?? []
      if (value === '') cookies.delete(name)
      else cookies.set(name, value)
    }
    return answer
  }
  let next = address
  for (let step = 0; step < 10; step += 1) {
    let answer = await request(next)
    if (answer.status === 200) {
      const form = formOf(await answer.text())
      const fields = { username: person.username, password: person.password, decision: 'approve' }
      answer = await request(new URL(form.action, next).href, new URLSearchParams({ ...form.hidden, ...fields }))
    }
    const location = answer.headers.get('location')
    if (location === null) throw new Error(`sign-in: ${next} answered ${answer.status}: ${await answer.text()}`)
    next = new URL(location, next).href
    if (next.startsWith(REDIRECT_URI)) return header()
  }
  throw new Error('the sign-in came to no end')
}

/** The form of a page in which the person decides: the one with a password, or a decision. */
function formOf(html: string): { action: string; hidden: Record<string, string> } {
  for (const [form] of html.matchAll(/<form[\s\S]*?<\/form>/g)) {
    if (!/name="(password|decision)"/.test(form)) continue
    const hidden = [...form.matchAll(/<input[^>]*type="hidden"[^>]*>/g)].map(([input]): [string, string] => [
      attribute(input, 'name'),
      attribute(input, 'value'),
    ])
    return { action: attribute(form, 'action'), hidden: Object.fromEntries(hidden) }
  }
  throw new Error('sign-in: a page without its form')
}

function attribute(text: string, name: string): string {
  const value = new RegExp(`\\b${name}="([^"]*)"`).exec(text)?.[1] ?? ''
  return value.replaceAll('&amp;', '&').replaceAll('&#39;', "'").replaceAll('&quot;', '"')
}
