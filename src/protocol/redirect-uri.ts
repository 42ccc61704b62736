/** Schemes that run or show content in the browser itself: never a place to send a code to. */
const FORBIDDEN_SCHEMES: ReadonlySet<string> = new Set([
  'javascript',
  'data',
  'file',
  'vbscript',
  'blob',
  'about',
  'view-source',
  'filesystem',
  'ftp',
  'ws',
  'wss',
  'mailto',
])

const LOOPBACK_HOSTS: ReadonlySet<string> = new Set(['127.0.0.1', '[::1]', 'localhost'])

/** It is part of the key of a consent, beside a client identifier that may be as long. */
const LONGEST_URI = 1024 // characters

/** An absolute URI in ASCII: no space, control character, quote, backslash or other text that parsers disagree on. */
const PLAIN_URI = /^[A-Za-z][A-Za-z0-9+.-]*:[\x21\x23-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]+$/

/**
 * Says why a redirect URI can't be registered (RFC 9700 §4.1.3, RFC 8252 §7, RFC 6749 §3.1.2).
 *
 * https anywhere, http on loopback alone, and private-use schemes: reverse-DNS names, or a name that
 * the operator allows.
 *
 * @param allowedSchemes private-use schemes without a dot, such as `cursor`
 * @returns `undefined` when it can be registered
 */
export function redirectUriProblem(uri: string, allowedSchemes: readonly string[]): string | undefined {
  if (uri.length > LONGEST_URI) return 'is longer than 1,024 characters'
  if (!PLAIN_URI.test(uri) || !URL.canParse(uri)) return 'is not an absolute URI'
  if (uri.includes('#')) return 'has a fragment'
  const url = new URL(uri)
  const scheme = url.protocol.slice(0, -1)
  if (FORBIDDEN_SCHEMES.has(scheme)) return 'has a scheme that is never allowed'
  if (url.username !== '' || url.password !== '') return 'holds credentials'
  if (scheme === 'https' || scheme === 'http') {
    if (!/^https?:\/\/[^/]/i.test(uri)) return 'is not an absolute URI'
    return scheme === 'http' && !isLoopback(url) ? 'uses http on a host that is not loopback' : undefined
  }
  return scheme.includes('.') || allowedSchemes.includes(scheme) ? undefined : 'has a scheme that is not allowed here'
}

/**
 * Finds the registered redirect URI that a requested one stands for.
 *
 * Exact comparison of strings (RFC 9700 §4.1.3), but the port of a loopback URI may differ: a native
 * application takes whichever is free (RFC 8252 §7.3). Registered without port counts as any, too.
 */
export function matchesRedirectUri(registered: string, requested: string): boolean {
  if (registered === requested) return true
  const one = loopbackWithoutPort(registered)
  return one !== undefined && one === loopbackWithoutPort(requested)
}

/** Where the browser goes after consent, in a form that a person can judge. */
export type RedirectPlace =
  | { kind: 'web'; name: string }
  | { kind: 'loopback'; name: string }
  | { kind: 'application'; name: string }

/** Describes a redirect URI that was found valid: the host's name, or the application's scheme. */
export function redirectPlace(uri: string): RedirectPlace {
  const url = new URL(uri)
  if (isLoopback(url)) return { kind: 'loopback', name: url.host }
  if (url.protocol === 'https:') return { kind: 'web', name: url.host }
  return { kind: 'application', name: url.protocol.slice(0, -1) }
}

/** The host, path and query of a loopback URI: cut by text, so that they are compared byte for byte. */
function loopbackWithoutPort(uri: string): string | undefined {
  if (!URL.canParse(uri)) return undefined // a port above 65,535
  const match = /^http:\/\/(127\.0\.0\.1|\[::1\]|localhost)(?::\d{1,5})?((?:[/?].*)?)$/.exec(uri)
  return match === null ? undefined : `${match[1]}${match[2]}`
}

function isLoopback(url: URL): boolean {
  return url.protocol === 'http:' && LOOPBACK_HOSTS.has(url.hostname)
}
