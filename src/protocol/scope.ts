import { OAuthError } from './oauth-error.ts'

/** One scope name (RFC 6749 §3.3): printable ASCII without space, quote and backslash. */
const SCOPE_NAME = /^[\x21\x23-\x5b\x5d-\x7e]{1,256}$/

/** Scopes of OpenID Connect, which mean nothing here: clients ask for them out of habit. */
const MEANINGLESS_SCOPES: ReadonlySet<string> = new Set(['openid', 'profile', 'email', 'offline_access'])

/** Whether a text is one scope name. */
export function isScopeName(text: string): boolean {
  return SCOPE_NAME.test(text)
}

/** Whether a text is one scope name that can mean something here. */
export function isMeaningfulScope(text: string): boolean {
  return isScopeName(text) && !MEANINGLESS_SCOPES.has(text)
}

/**
 * Reads a `scope` parameter (RFC 6749 §3.3) as a list without repetitions.
 *
 * @returns `undefined` when nothing was asked for: absent, empty, or only scopes that mean nothing here
 * @throws {OAuthError} `invalid_scope` when it is not a list of scope names
 */
export function readScope(parameter: string | undefined): string[] | undefined {
  const names = [...new Set((parameter ?? '').split(' ').filter((name) => name !== ''))]
  if (!names.every(isScopeName)) throw new OAuthError('invalid_scope', 'scope is not a list of scope names')
  const meaningful = names.filter(isMeaningfulScope)
  return meaningful.length === 0 ? undefined : meaningful
}

/** What may be granted to a client for a resource. */
export interface ScopeLimits {
  /** all scopes of the resource, in its order; none means that the resource knows no scopes */
  resourceScope: readonly string[]
  /** what the client gets when it asks for nothing: a registration's `scope` */
  defaultScope?: readonly string[] | undefined
  /** the most that the client may get, set by an operator alone */
  boundScope?: readonly string[] | undefined
}

/**
 * Narrows requested scopes to what may be granted: what a client may not have is left out, not refused.
 *
 * A client that asks for nothing gets its default, or else everything that it may have.
 *
 * @returns the scopes in the resource's order; empty when the resource knows none
 * @throws {OAuthError} `invalid_scope` when nothing of what was asked for is left
 */
export function narrowScope(requested: readonly string[] | undefined, limits: ScopeLimits): string[] {
  const { resourceScope, defaultScope, boundScope } = limits
  if (resourceScope.length === 0) return []
  const possible = boundScope === undefined ? [...resourceScope] : intersect(resourceScope, boundScope)
  const granted = requested === undefined ? defaultOf(possible, defaultScope) : intersect(possible, requested)
  if (granted.length === 0) {
    throw new OAuthError('invalid_scope', 'none of the requested scopes can be granted for this resource')
  }
  return granted
}

function defaultOf(possible: string[], defaultScope: readonly string[] | undefined): string[] {
  const preferred = intersect(possible, defaultScope ?? [])
  return preferred.length === 0 ? possible : preferred // a stale default must not lock the client out
}

function intersect(ordered: readonly string[], wanted: readonly string[]): string[] {
  return ordered.filter((name) => wanted.includes(name))
}
