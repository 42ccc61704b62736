import { isThumbprint } from './dpop.ts'
import { OAuthError } from './oauth-error.ts'
import type { Parameters } from './parameters.ts'
import { isCodeChallenge } from './pkce.ts'
import { matchesRedirectUri } from './redirect-uri.ts'
import { readScope } from './scope.ts'

declare const proven: unique symbol

/**
 * A place where a response may be sent: it exists only after `client_id` and `redirect_uri` passed, and
 * every redirect demands one, so an open redirect can't be written (RFC 9700 §4.11).
 */
export interface RedirectTarget {
  readonly [proven]: true
  readonly redirectUri: string
  /** the registered one that it stands for: differs in the port of a loopback URI alone */
  readonly registeredUri: string
  readonly state: string | undefined
}

/** An authorization request whose parameters are well-formed. */
export interface AuthorizationRequest {
  target: RedirectTarget
  codeChallenge: string
  /** `undefined`: nothing that means anything here was asked for */
  requestedScope: string[] | undefined
  /** as sent, not yet looked up */
  requestedResource: string | undefined
  prompt: ReadonlySet<string>
  /** thumbprint of the key that must redeem the code (RFC 9449 §10) */
  dpopJkt: string | undefined
}

/**
 * Proves where the response goes (RFC 6749 §3.1.2.3): `redirect_uri` is one that the client registered,
 * or absent when exactly one is.
 *
 * @throws {OAuthError} `invalid_request`, to be shown to the person and never sent to the URI
 */
export function proveRedirectTarget(registered: readonly string[], parameters: Parameters): RedirectTarget {
  const requested = parameters.get('redirect_uri')
  const state = parameters.get('state')
  if (requested === undefined) {
    const [only, ...others] = registered
    if (only === undefined || others.length > 0) {
      throw new OAuthError('invalid_request', 'redirect_uri is missing', 'redirect_uri_missing')
    }
    return { redirectUri: only, registeredUri: only, state } as RedirectTarget
  }
  const registeredUri = registered.find((uri) => matchesRedirectUri(uri, requested))
  if (registeredUri === undefined) {
    throw new OAuthError('invalid_request', 'redirect_uri is not registered for this client', 'redirect_uri_mismatch')
  }
  return { redirectUri: requested, registeredUri, state } as RedirectTarget
}

/**
 * Reads the rest of an authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3, RFC 8707 §2).
 *
 * PKCE with S256 is demanded of every client (OAuth 2.1 §4.1.1); an absent method counts as S256.
 *
 * @throws {OAuthError} to be sent to the target
 */
export function readAuthorizationRequest(target: RedirectTarget, parameters: Parameters): AuthorizationRequest {
  return { target, ...readAuthorizationParameters(parameters) }
}

/** What such a request says beside its client and its target. @throws {OAuthError} */
export function readAuthorizationParameters(parameters: Parameters): Omit<AuthorizationRequest, 'target'> {
  const responseType = parameters.get('response_type')
  if (responseType === undefined) throw new OAuthError('invalid_request', 'response_type is missing')
  if (responseType !== 'code') {
    throw new OAuthError('unsupported_response_type', 'the only response_type here is code')
  }
  if ((parameters.get('response_mode') ?? 'query') !== 'query') {
    throw new OAuthError('invalid_request', 'the only response_mode here is query')
  }
  if (parameters.has('request') || parameters.has('request_uri')) {
    throw new OAuthError('invalid_request', 'request objects are not supported')
  }
  if ((parameters.get('code_challenge_method') ?? 'S256') !== 'S256') {
    throw new OAuthError('invalid_request', 'code_challenge_method must be S256')
  }
  const codeChallenge = parameters.get('code_challenge')
  if (codeChallenge === undefined) throw new OAuthError('invalid_request', 'code_challenge is missing')
  if (!isCodeChallenge(codeChallenge)) {
    throw new OAuthError('invalid_request', 'code_challenge is not the base64url of a SHA-256')
  }
  const prompt = new Set((parameters.get('prompt') ?? '').split(' ').filter((word) => word !== ''))
  if (prompt.has('none') && prompt.size > 1) {
    throw new OAuthError('invalid_request', 'prompt=none stands alone')
  }
  const dpopJkt = parameters.get('dpop_jkt')
  if (dpopJkt !== undefined && !isThumbprint(dpopJkt)) {
    throw new OAuthError('invalid_request', 'dpop_jkt is not the base64url of a SHA-256')
  }
  return {
    codeChallenge,
    requestedScope: readScope(parameters.get('scope')),
    requestedResource: parameters.get('resource'),
    prompt,
    dpopJkt,
  }
}

/**
 * The URI that carries a response to the client: parameters are appended to the redirect URI's own query
 * (RFC 6749 §3.1.2, §4.1.2), with one `state` as it came and one `iss` (RFC 9207).
 *
 * @param issuer `undefined` leaves `iss` out
 */
export function responseUri(
  target: RedirectTarget,
  response: Record<string, string>,
  issuer: string | undefined,
): string {
  const { redirectUri, state } = target
  const parameters = Object.entries({
    ...response,
    ...(state === undefined ? {} : { state }),
    ...(issuer === undefined ? {} : { iss: issuer }),
  })
  // %20 and not a plus sign: clients of custom schemes decode with decodeURIComponent alone
  const query = parameters.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&')
  if (!redirectUri.includes('?')) return `${redirectUri}?${query}`
  return redirectUri.endsWith('?') || redirectUri.endsWith('&') ? redirectUri + query : `${redirectUri}&${query}`
}
