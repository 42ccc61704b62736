import axe from 'axe-core'
import t from 'tap'
import { openBrowser, WITHOUT_BROWSER } from '../support/browser.ts'
import { walkPages } from '../support/pages.ts'
import { VARIANTS } from '../support/variants.ts'

const root = t

/** What axe reports, as far as we read it. */
interface Finding {
  id: string
  nodes: { html: string; failureSummary: string }[]
}

// skipped only where there is no Chromium, and says so: WITHOUT_BROWSER is the reason
t.test('axe finds nothing on any page, and nothing is wider than the screen', { skip: WITHOUT_BROWSER }, async (t) => {
  const visitor = await openBrowser(t, root)
  const { page } = visitor
  await walkPages(t, visitor, async (name) => {
    await page.evaluate(axe.source)
    for (const { label, width, colorScheme } of VARIANTS) {
      await page.setViewportSize({ width, height: 800 })
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
      const findings = (await page.evaluate(
        'axe.run({ resultTypes: ["violations"], preload: false }).then(({ violations }) => violations)',
      )) as Finding[]
      t.same(
        findings.map(({ id, nodes }) => [id, ...nodes.map(({ html, failureSummary }) => `${html}: ${failureSummary}`)]),
        [],
        `${name}, ${label}`,
      )
      t.equal(await page.evaluate('document.documentElement.scrollWidth'), width, `${name} fits: ${label}`)
    }
  })
  t.same(
    visitor.complaints.filter((text) => !/status of 4\d\d/.test(text)),
    [],
    'and the browser has nothing to complain about',
  )
})
