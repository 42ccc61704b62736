import { CLIENT_ASSERTION_TYPE, claimedClientId } from './client-assertion.ts'
import { OAuthError } from './oauth-error.ts'
import type { Parameters } from './parameters.ts'

/** How a client proves who it is at the token endpoint (RFC 7591 §2). */
export const CLIENT_AUTHENTICATION_METHODS = [
  'none',
  'client_secret_basic',
  'client_secret_post',
  'private_key_jwt',
] as const
export type ClientAuthenticationMethod = (typeof CLIENT_AUTHENTICATION_METHODS)[number]

/** What a request says of its sender. One reading is right; Basic has two, since clients encode differently. */
export interface PresentedCredentials {
  method: ClientAuthenticationMethod
  /** readings of the identifier, with the secret that goes with each */
  readings: { clientId: string; clientSecret: string | undefined }[]
  /** the assertion of `private_key_jwt`, unproven */
  assertion?: string
}

/**
 * Reads client credentials from the `Authorization` header or the body (RFC 6749 §2.3.1, RFC 7523 §2.2).
 *
 * Basic credentials should be form-urlencoded before base64, but many clients send them raw, so both
 * readings are offered. More than one method at once is refused (RFC 6749 §2.3), but a `client_id`
 * that repeats the header's is common and harmless.
 *
 * @throws {OAuthError} `invalid_client` when there is none or it is malformed, `invalid_request` for two methods or
 *   another scheme beside a client_id: clients wipe their registration on `invalid_client`
 */
export function readClientCredentials(authorization: string | undefined, parameters: Parameters): PresentedCredentials {
  const bodyId = parameters.get('client_id')
  const bodySecret = parameters.get('client_secret')
  if (parameters.has('client_assertion') || parameters.has('client_assertion_type')) {
    if (authorization !== undefined || bodySecret !== undefined) throw severalMethods()
    return readAssertion(parameters)
  }
  if (authorization === undefined) {
    if (bodyId === undefined) throw new OAuthError('invalid_client', 'client authentication is missing')
    const method = bodySecret === undefined ? 'none' : 'client_secret_post'
    return { method, readings: [{ clientId: bodyId, clientSecret: bodySecret }] }
  }
  if (bodyId !== undefined && !/^Basic\b/i.test(authorization)) {
    throw new OAuthError('invalid_request', 'the Authorization header is not Basic', 'authorization_scheme_wrong')
  }
  const readings = readBasic(authorization)
  if (readings.length === 0) {
    throw new OAuthError('invalid_client', 'the Authorization header holds no usable Basic credentials')
  }
  if (bodySecret !== undefined) throw severalMethods()
  if (bodyId !== undefined && !readings.some((reading) => reading.clientId === bodyId)) {
    throw new OAuthError('invalid_request', 'client_id differs from the Authorization header')
  }
  return { method: 'client_secret_basic', readings }
}

/** A `client_id` beside the assertion isn't needed, but must be the same (RFC 7521 §4.2). */
function readAssertion(parameters: Parameters): PresentedCredentials {
  if (parameters.get('client_assertion_type') !== CLIENT_ASSERTION_TYPE) {
    throw new OAuthError('invalid_client', 'client_assertion_type is missing or not supported')
  }
  const assertion = parameters.get('client_assertion') ?? ''
  const clientId = claimedClientId(assertion)
  if (clientId === undefined) {
    throw new OAuthError('invalid_client', 'client_assertion is not a usable JWT', 'client_assertion_malformed')
  }
  if ((parameters.get('client_id') ?? clientId) !== clientId) {
    throw new OAuthError('invalid_request', 'client_id differs from the client assertion')
  }
  return { method: 'private_key_jwt', readings: [{ clientId, clientSecret: undefined }], assertion }
}

function severalMethods(): OAuthError {
  return new OAuthError('invalid_request', 'only one method of client authentication may be used')
}

function readBasic(authorization: string): PresentedCredentials['readings'] {
  const match = /^Basic +([A-Za-z0-9+/_-]+={0,2})$/i.exec(authorization)
  if (match?.[1] === undefined) return []
  const text = Buffer.from(match[1], 'base64').toString('utf8')
  const colon = text.indexOf(':')
  if (colon < 1 || text.includes('\0')) return []
  const raw = { clientId: text.slice(0, colon), clientSecret: text.slice(colon + 1) }
  const decoded = { clientId: formDecode(raw.clientId), clientSecret: formDecode(raw.clientSecret) }
  if (decoded.clientId === undefined || decoded.clientSecret === undefined || decoded.clientId.includes('\0')) {
    return [raw]
  }
  const same = decoded.clientId === raw.clientId && decoded.clientSecret === raw.clientSecret
  return same ? [raw] : [raw, { clientId: decoded.clientId, clientSecret: decoded.clientSecret }]
}

function formDecode(text: string): string | undefined {
  if (!/[%+]/.test(text)) return text // what we issue needs no decoding, and to try takes a fiftieth of an introspection
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return undefined // a raw secret with a lone percent sign
  }
}
