import t from 'tap'
import { accentColors, contrast } from '../../src/pages/accent.ts'

const CARD = { light: '#ffffff', dark: '#171f1d' }

t.test('contrast is that of WCAG', async (t) => {
  t.equal(contrast('#000000', '#ffffff'), 21)
  t.equal(contrast('#ffffff', '#ffffff'), 1)
  t.equal(contrast('#767676', '#ffffff').toFixed(2), '4.54')
  t.equal(contrast('#ffffff', '#777777').toFixed(2), '4.48')
})

t.test('of any colour, both schemes have one that can be read on the card, and words on it', async (t) => {
  const steps = [0, 51, 102, 153, 204, 255].map((value) => value.toString(16).padStart(2, '0'))
  const all = steps.flatMap((red) => steps.flatMap((green) => steps.map((blue) => `#${red}${green}${blue}`)))
  for (const color of all) {
    for (const [scheme, { accent, accentStrong, onAccent }] of Object.entries(accentColors(color))) {
      const card = CARD[scheme as keyof typeof CARD]
      const found = [accent, accentStrong].flatMap((one) => [contrast(one, card), contrast(one, onAccent)])
      if (Math.min(...found) < 4.5) t.fail(`${color} in the ${scheme} scheme: ${found.join(', ')}`)
    }
  }
})

t.test('a colour that can be read stays as it is, and another changes as little as it has to', async (t) => {
  t.equal(accentColors('#0e5a4e').light.accent, '#0e5a4e')
  t.equal(accentColors('#86d0c0').dark.accent, '#86d0c0')
  t.ok(contrast(accentColors('#ffd400').light.accent, CARD.light) < 4.7)
  t.ok(contrast(accentColors('#1a1a80').dark.accent, CARD.dark) < 4.7)
})
