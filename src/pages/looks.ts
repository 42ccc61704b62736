import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Config } from '../config.ts'
import { VIEWS } from '../package.ts'
import { type AccentColors, accentColors } from './accent.ts'

const STYLE = readFileSync(join(VIEWS, 'style.css'), 'utf8')

/** Of the icon, when no colour is configured; it shows on light and on dark. */
const ICON_COLOR = '#178a77'

/** What every page looks like, as it was configured. */
export interface Looks {
  name: string
  /** a `data:` URI, shown instead of the mark */
  logo: string | undefined
  iconColor: string
  style: string
  headers: Record<string, string>
}

declare module 'fastify' {
  interface FastifyInstance {
    looks: Looks
  }
}

/** Works out the looks once, at start. */
export function createLooks({ name, logo, accentColor }: Pick<Config, 'name' | 'logo' | 'accentColor'>): Looks {
  const style = accentColor === undefined ? STYLE : STYLE + accentStyle(accentColor)
  return { name, logo, iconColor: accentColor ?? ICON_COLOR, style, headers: pageHeaders(style) }
}

/**
 * Headers of every page. No `form-action`: Chromium applies it to the redirect after a form, and so to the way
 * back to the client. No `Cross-Origin-Opener-Policy`: clients open these pages in a popup and wait for it.
 */
function pageHeaders(style: string): Record<string, string> {
  return {
    'content-security-policy': [
      "default-src 'none'",
      `style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'`,
      'img-src data:',
      "base-uri 'none'",
      "frame-ancestors 'none'",
    ].join('; '),
    'x-frame-options': 'DENY',
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'same-origin',
    'cache-control': 'no-store',
  }
}

function accentStyle(color: string): string {
  const { light, dark } = accentColors(color)
  return `:root { ${declarations(light)} }\n@media (prefers-color-scheme: dark) { :root { ${declarations(dark)} } }\n`
}

function declarations({ accent, accentStrong, onAccent }: AccentColors): string {
  return `--accent: ${accent}; --accent-strong: ${accentStrong}; --on-accent: ${onAccent};`
}
