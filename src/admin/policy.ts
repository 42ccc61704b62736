import { lifetimeProblem } from '../config.ts'
import type { Lifetimes } from '../store/database.ts'
import { AdminError } from './output.ts'

/** Options that set the lifetimes of one resource server or client: seconds, or `default` to have none of its own. */
export interface LifetimeOptions {
  accessTokenSeconds?: string
  refreshTokenSeconds?: string
  familySeconds?: string
  refreshGraceSeconds?: string
}

const COLUMNS = {
  accessTokenSeconds: 'access_token_seconds',
  refreshTokenSeconds: 'refresh_token_seconds',
  familySeconds: 'family_seconds',
  refreshGraceSeconds: 'refresh_grace_seconds',
} as const

/** The lifetimes to be changed; those that were not named stay. @throws {AdminError} */
export function readLifetimes(options: LifetimeOptions): Partial<Lifetimes> {
  const lifetimes: Partial<Lifetimes> = {}
  for (const [option, column] of Object.entries(COLUMNS) as [keyof LifetimeOptions, keyof Lifetimes][]) {
    const text = options[option]
    if (text === undefined) continue
    const problem = text === 'default' ? undefined : lifetimeProblem(option, text)
    if (problem !== undefined) throw new AdminError(`--${column.replaceAll('_', '-')} ${problem}, or "default".`)
    lifetimes[column] = text === 'default' ? null : Number(text)
  }
  return lifetimes
}

/** The lifetimes for programs; `null`: none of its own. */
export function lifetimesJson(row: Lifetimes): Lifetimes {
  const { access_token_seconds, refresh_token_seconds, family_seconds, refresh_grace_seconds } = row
  return { access_token_seconds, refresh_token_seconds, family_seconds, refresh_grace_seconds }
}

/** The lifetimes for people. */
export function lifetimeFacts(row: Lifetimes): Record<string, string> {
  const own = Object.values(COLUMNS).filter((column) => row[column] !== null)
  return Object.fromEntries(own.map((column) => [column.replaceAll('_', ' '), String(row[column])]))
}
