import { createHash } from 'node:crypto'
import t from 'tap'
import type { Config } from '../../src/config.ts'
import { startTestPostern } from '../support/postern.ts'

const LOGO = 'data:image/svg+xml;base64,PHN2Zz48L3N2Zz4='

/** The sign-in page, and the hash of the style that it allows. */
async function open(settings: Partial<Config>) {
  const { server } = await startTestPostern(t, settings, { bare: true })
  const { body, headers } = await server.inject({ url: '/login' })
  const style = /<style>([\s\S]*?)<\/style>/.exec(body)?.[1] ?? ''
  const hash = createHash('sha256').update(style).digest('base64')
  t.match(headers['content-security-policy'], `style-src 'sha256-${hash}'`, 'the style is allowed')
  return { body, style }
}

t.test('a page bears the name, the logo and the colour that were configured', async (t) => {
  const { body, style } = await open({ name: '<b>Söhne & Co', logo: LOGO, accentColor: '#f97316' })
  t.match(body, '<title>Sign in · &lt;b&gt;Söhne &amp; Co</title>')
  t.match(body, `<img src="${LOGO}" alt="&lt;b&gt;Söhne &amp; Co">`)
  t.match(body, "stroke='%23f97316'", 'the icon')
  t.match(style, /--accent: #f97316;/, 'in the dark, where it can be read as it is')
  t.notMatch(body, 'Postern')
})

t.test('without them, it is the page of Postern', async (t) => {
  const { body } = await open({})
  t.match(body, '<title>Sign in · Postern</title>')
  t.match(body, '<span class="wordmark"><bdi>Postern</bdi></span>')
  t.notMatch(body, '<img')
})

t.test('one process does not take the looks of another', async (t) => {
  const [one, other] = [await open({ name: 'One' }), await open({ name: 'Other' })]
  t.match(one.body, '· One<')
  t.match(other.body, '· Other<')
})
