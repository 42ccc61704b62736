import { OAuthError } from './oauth-error.ts'
import type { Parameters } from './parameters.ts'

/** How long a pushed request may be used: time to sign in and to consent (RFC 9126 §2.2: 5 to 600 seconds). */
export const PUSHED_REQUEST_SECONDS = 600

const REQUEST_URI = 'urn:ietf:params:oauth:request_uri:' // RFC 9126 §2.2

/** The `request_uri` that stands for a pushed request. */
export function requestUriFor(reference: string): string {
  return REQUEST_URI + reference
}

/** The reference in a `request_uri`, or `undefined` when it is not of ours: nothing is ever fetched from it. */
export function readRequestUri(requestUri: string): string | undefined {
  return requestUri.startsWith(REQUEST_URI) ? requestUri.slice(REQUEST_URI.length) : undefined
}

/** The parameters that mean something in an authorization request. Others are ignored (RFC 6749 §3.1), and not kept. */
const MEANINGFUL: ReadonlySet<string> = new Set([
  'client_id',
  'code_challenge',
  'code_challenge_method',
  'dpop_jkt',
  'prompt',
  'redirect_uri',
  'request',
  'resource',
  'response_mode',
  'response_type',
  'scope',
  'state',
])

/** What of a pushed form is the authorization request. @throws {OAuthError} when it refers to another one (RFC 9126 §2.1) */
export function readPushedParameters(form: Parameters, clientId: string): Parameters {
  if (form.has('request_uri') || form.has('request')) {
    throw new OAuthError('invalid_request', 'a pushed request holds its parameters itself')
  }
  const parameters = [...form].filter(([name]) => MEANINGFUL.has(name))
  return new Map([...parameters, ['client_id', clientId]])
}

/**
 * Refuses parameters beside `client_id` and `request_uri` that say something else than what was pushed
 * (RFC 9126 §4): someone has changed the link. What means nothing contradicts nothing.
 */
export function refuseContradictions(sent: Parameters, pushed: Parameters): void {
  for (const [name, value] of sent) {
    if (MEANINGFUL.has(name) && pushed.get(name) !== value) {
      throw new OAuthError(
        'invalid_request',
        'a parameter contradicts the pushed request',
        'pushed_request_contradicted',
      )
    }
  }
}
