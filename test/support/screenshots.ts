/** What `npm run screenshots` runs: writes pictures of every page into docs/images/pages, and docs/pages.md. */
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { openBrowser, WITHOUT_BROWSER } from './browser.ts'
import { walkPages } from './pages.ts'
import { VARIANTS } from './variants.ts'

const DOCS = join(import.meta.dirname, '..', '..', '..', 'docs')
const FOLDER = join(DOCS, 'images', 'pages')

/** In CSS pixels: from here on, the space above the card is the same. */
const TALL = 1200

const HEIGHT = "document.querySelector('.page').getBoundingClientRect().height"

/** Waits until the page has been painted in its new size. */
const PAINTED = 'new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))'

t.setTimeout(600_000)

t.test('every page has its pictures', { skip: WITHOUT_BROWSER }, async (t) => {
  const visitor = await openBrowser(t, t)
  const { page, context } = visitor
  const devTools = await context.newCDPSession(page)
  await rm(FOLDER, { recursive: true, force: true })
  await mkdir(FOLDER, { recursive: true })
  const sections: string[] = []
  await walkPages(t, visitor, async (name, title) => {
    const images: string[] = []
    for (const { label, width, colorScheme } of VARIANTS) {
      await page.setViewportSize({ width, height: TALL })
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
      const height = Math.ceil(Number(await page.evaluate(HEIGHT)))
      await page.setViewportSize({ width, height: Math.max(TALL, height) })
      await page.evaluate(PAINTED)
      const { data } = await devTools.send('Page.captureScreenshot', {
        format: 'webp',
        quality: 75,
        clip: { x: 0, y: 0, width, height, scale: 1 },
      })
      const file = `${name}-${label.replace(', ', '-')}.webp`
      await writeFile(join(FOLDER, file), Buffer.from(data, 'base64'))
      const image = `<img src="images/pages/${file}" alt="${title}: ${label}" width="${width > 1000 ? 280 : 140}">`
      images.push(`<a href="images/pages/${file}">${image}</a>`)
    }
    sections.push(`## ${title}\n\n| ${VARIANTS.map(({ label }) => label).join(' | ')} |`)
    sections.push(`|${' --- |'.repeat(VARIANTS.length)}\n| ${images.join(' | ')} |\n`)
  })
  await writeFile(
    join(DOCS, 'pages.md'),
    `# Every page\n\nWhat people see, as \`npm run screenshots\` found it with Chromium. [Name, logo and colour](looks.md) are settings.\n\n${sections.join('\n')}`,
  )
  t.ok(sections.length > 0)
})
