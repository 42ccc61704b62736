import { OAuthError } from '../protocol/oauth-error.ts'
import type { Parameters } from '../protocol/parameters.ts'

/** Where a person goes on after signing in: only to a page of our own, so no link can lead them elsewhere. */
const NEXT_PAGES = ['authorize', 'account', 'device'] as const
export type NextPage = (typeof NEXT_PAGES)[number]

/**
 * The query that carries a page and its parameters through the sign-in. Nothing is stored for a browser that
 * hasn't signed in, so the whole authorization request travels in the URL.
 */
export function queryFor(page: NextPage, parameters: Parameters = new Map()): string {
  const others = [...parameters].filter(([name]) => name !== 'continue')
  return new URLSearchParams([['continue', page], ...others]).toString()
}

/** The page to go on to, and its parameters. @throws {OAuthError} when it is not one of ours */
export function readNextPage(parameters: Parameters): { page: NextPage; parameters: Parameters } {
  const named = parameters.get('continue') ?? 'account'
  const page = NEXT_PAGES.find((one) => one === named)
  if (page === undefined) throw new OAuthError('invalid_request', 'continue names no page of this server')
  return { page, parameters: new Map([...parameters].filter(([name]) => name !== 'continue')) }
}

/**
 * The address to go on to after a sign-in. The demands of `prompt` that the sign-in has met are left out, or it
 * would be asked for for ever.
 */
export function nextAddress(basePath: string, page: NextPage, parameters: Parameters): string {
  const remaining = [...parameters].flatMap(([name, value]): [string, string][] => {
    if (name !== 'prompt') return [[name, value]]
    const unmet = value.split(' ').filter((word) => word !== 'login' && word !== 'select_account')
    return unmet.length === 0 ? [] : [[name, unmet.join(' ')]]
  })
  const query = new URLSearchParams(remaining).toString()
  return `${basePath}/${page}${query === '' ? '' : `?${query}`}`
}
