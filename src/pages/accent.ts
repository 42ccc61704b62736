/** Colours as `#rrggbb`, in one scheme. */
export interface AccentColors {
  /** of links, and behind the words of buttons */
  accent: string
  /** the same under the pointer */
  accentStrong: string
  /** of words on both */
  onAccent: string
}

/** Of text (WCAG 2.2 §1.4.3). */
const LEAST_CONTRAST = 4.5

/** The card, and what is at the other end: colours move there until they can be read on the card. */
const LIGHT = { card: '#ffffff', ink: '#000000' }
const DARK = { card: '#171f1d', ink: '#ffffff' }

/**
 * The colours of both schemes that come from one: the colour itself where it can be read on the card, and otherwise
 * the nearest darker or lighter one that can.
 *
 * @param color `#rrggbb`
 */
export function accentColors(color: string): { light: AccentColors; dark: AccentColors } {
  return { light: colorsOn(LIGHT, color), dark: colorsOn(DARK, color) }
}

/** How well one colour can be read on the other: 1 to 21 (WCAG 2.2, "contrast ratio"). */
export function contrast(one: string, other: string): number {
  const [a, b] = [luminance(one), luminance(other)]
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
}

function colorsOn({ card, ink }: typeof LIGHT, color: string): AccentColors {
  let accent = color
  for (let percent = 1; contrast(accent, card) < LEAST_CONTRAST; percent += 1) accent = mix(color, ink, percent)
  return { accent, accentStrong: mix(accent, ink, 35), onAccent: card }
}

/** @param percent how much of the second */
function mix(one: string, other: string, percent: number): string {
  const theirs = channels(other)
  const mixed = channels(one).map((value, n) => Math.round(value + ((theirs[n] ?? 0) - value) * (percent / 100)))
  return `#${mixed.map((value) => value.toString(16).padStart(2, '0')).join('')}`
}

/** Relative luminance (WCAG 2.2): 0 is black, 1 is white. */
function luminance(color: string): number {
  const [red = 0, green = 0, blue = 0] = channels(color).map((value) => {
    const share = value / 255
    return share <= 0.040_45 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue
}

/** Red, green and blue, 0 to 255. */
function channels(color: string): number[] {
  return [1, 3, 5].map((at) => Number.parseInt(color.slice(at, at + 2), 16))
}
