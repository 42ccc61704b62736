import { createHmac } from 'node:crypto'
import { OAuthError } from './oauth-error.ts'
import type { Parameters } from './parameters.ts'

/** Signature algorithms of proofs: asymmetric ones alone (RFC 9449 §4.3). */
export const DPOP_ALGORITHMS = ['ES256', 'PS256', 'RS256', 'EdDSA', 'Ed25519'] as const

/** How far the clock of a client may be off, either way. Generous, since the nonce says how old a proof is. */
const CLOCK_SECONDS = 300

/** A nonce is new for this long, and accepted for as long again. */
const NONCE_SECONDS = 120

/** The longest time for which one proof can be accepted, which is as long as its nonce. */
export const PROOF_SECONDS = 2 * NONCE_SECONDS

/** The claims of a proof (RFC 9449 §4.2). */
export interface DpopClaims {
  jti: string
  htm: string
  htu: string
  /** seconds since 1970 */
  iat: number
  nonce?: string | undefined
}

/** What the claims of a proof have to agree with. */
export interface DpopExpectation {
  /** of the request */
  method: string
  /** public address of the endpoint, as clients know it */
  uri: string
  now: Date
  /** the nonces that are accepted */
  nonces: readonly string[]
}

export type DpopVerdict =
  | 'good'
  | 'wrong-method'
  | 'wrong-uri'
  | 'stale'
  | 'from-the-future'
  | 'nonce-missing'
  | 'nonce-wrong'

/**
 * Decides whether a proof, whose signature is right, was made for this request (RFC 9449 §4.3).
 *
 * The nonce comes last, so that a client is asked to try again only with a proof that could pass. `ath` is for
 * resource servers: no access token is presented here.
 */
export function judgeDpopClaims(claims: DpopClaims, expected: DpopExpectation): DpopVerdict {
  if (claims.htm !== expected.method) return 'wrong-method'
  const uri = comparableUri(claims.htu)
  if (uri === undefined || uri !== comparableUri(expected.uri)) return 'wrong-uri'
  const age = expected.now.getTime() / 1000 - claims.iat
  if (age > CLOCK_SECONDS) return 'stale'
  if (age < -CLOCK_SECONDS) return 'from-the-future'
  if (claims.nonce === undefined) return 'nonce-missing'
  return expected.nonces.includes(claims.nonce) ? 'good' : 'nonce-wrong'
}

/**
 * The nonce to hand out, and the one before it, which is still accepted (RFC 9449 §8). Nothing is stored for
 * them: whoever has the secret finds the same ones, on every replica.
 */
export function dpopNonces(secret: Buffer, now: Date): [current: string, previous: string] {
  const step = Math.floor(now.getTime() / 1000 / NONCE_SECONDS)
  const nonceOf = (step: number) => createHmac('sha256', secret).update(`DPoP nonce ${step}`).digest('base64url')
  return [nonceOf(step), nonceOf(step - 1)]
}

/** Whether a text can be the SHA-256 thumbprint of a key (RFC 7638 §3). */
export function isThumbprint(text: string): boolean {
  return /^[A-Za-z0-9_-]{43}$/.test(text)
}

/**
 * Adds the key that a pushed authorization request has proven to its parameters, as `dpop_jkt` (RFC 9449 §10.1).
 *
 * @throws {OAuthError} `invalid_request` when they name another key
 */
export function bindToKey(parameters: Parameters, jkt: string | undefined): Parameters {
  if (jkt === undefined) return parameters
  if ((parameters.get('dpop_jkt') ?? jkt) !== jkt) {
    throw new OAuthError('invalid_request', 'dpop_jkt is not the key of the DPoP proof', 'dpop_jkt_contradicted')
  }
  return new Map([...parameters, ['dpop_jkt', jkt]])
}

/** An address as `htu` is compared: without query and fragment, normalised (RFC 3986 §6.2.2, §6.2.3). */
function comparableUri(uri: string): string | undefined {
  if (!URL.canParse(uri)) return undefined
  const { protocol, username, password, origin, pathname } = new URL(uri)
  if (!['https:', 'http:'].includes(protocol) || username !== '' || password !== '') return undefined
  return origin + pathname.replaceAll(/%[0-9a-f]{2}/gi, normaliseEscape)
}

function normaliseEscape(encoded: string): string {
  const character = String.fromCharCode(Number.parseInt(encoded.slice(1), 16))
  return /[A-Za-z0-9._~-]/.test(character) ? character : encoded.toUpperCase()
}
