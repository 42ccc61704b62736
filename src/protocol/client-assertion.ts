/** The one kind of client assertion (RFC 7523 §2.2). */
export const CLIENT_ASSERTION_TYPE = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'

/** Signature algorithms of assertions: asymmetric ones alone. Ed25519 is the newer name of EdDSA (RFC 9864). */
export const ASSERTION_ALGORITHMS = ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'] as const
export type AssertionAlgorithm = (typeof ASSERTION_ALGORITHMS)[number]

/** How far the clock of a client may be off. */
const CLOCK_SECONDS = 30

/** An assertion is made for one request: one that holds for longer is not for this. */
const LONGEST_SECONDS = 600

/** The longest assertion: one with an RSA key of 4096 bits has a third of it. */
const LONGEST_ASSERTION = 4096 // characters

/** A public key as a client publishes it (RFC 7517 §4), with what is needed to verify, and nothing else. */
export interface PublicJwk {
  kty: 'RSA' | 'EC' | 'OKP'
  kid?: string | undefined
  alg?: string | undefined
  use?: string | undefined
  key_ops?: string[] | undefined
  n?: string
  e?: string
  crv?: string
  x?: string
  y?: string
}

/** The header of an assertion, as far as it counts: keys that it brings along (`jwk`, `jku`, `x5c`, `x5u`) don't. */
export interface AssertionHeader {
  alg: AssertionAlgorithm
  kid?: string | undefined
}

/** The claims of an assertion (RFC 7523 §3). Times are seconds since 1970. */
export interface AssertionClaims {
  iss: string
  sub: string
  aud: string | string[]
  jti: string
  exp: number
  nbf?: number | undefined
  iat?: number | undefined
}

/** What the claims of an assertion have to agree with. */
export interface AssertionExpectation {
  clientId: string
  /** names of this server: one of them must be an audience */
  audiences: readonly string[]
  now: Date
}

export type AssertionVerdict =
  | 'good'
  | 'wrong-client'
  | 'wrong-audience'
  | 'expired'
  | 'not-yet-valid'
  | 'valid-for-too-long'

/**
 * Decides whether an assertion, whose signature is right, was made by this client for this server (RFC 7523 §3).
 *
 * The audience is the issuer, or the token endpoint as many libraries have it. Others may be named beside it: an
 * assertion counts once here, and where else it counts is for the others to say.
 */
export function judgeAssertionClaims(claims: AssertionClaims, expected: AssertionExpectation): AssertionVerdict {
  const now = expected.now.getTime() / 1000
  if (claims.iss !== expected.clientId || claims.sub !== expected.clientId) return 'wrong-client'
  if (![claims.aud].flat().some((audience) => expected.audiences.includes(audience))) return 'wrong-audience'
  if (claims.exp <= now - CLOCK_SECONDS) return 'expired'
  if (claims.exp > now + LONGEST_SECONDS + CLOCK_SECONDS) return 'valid-for-too-long'
  if (Math.max(claims.nbf ?? 0, claims.iat ?? 0) > now + CLOCK_SECONDS) return 'not-yet-valid'
  return 'good'
}

/** For how many seconds an assertion must be remembered, so that it isn't accepted a second time. */
export function secondsToRemember(claims: AssertionClaims, now: Date): number {
  return Math.ceil(claims.exp - now.getTime() / 1000) + CLOCK_SECONDS
}

/**
 * The keys that an assertion may have been signed with (RFC 7515 §4.1.4, RFC 7517 §4): the type fits the
 * algorithm, so a public key never serves as a shared secret, and the key's own words don't speak against it.
 * A key without a name may be meant, whichever is asked for.
 */
export function candidateKeys(keys: readonly PublicJwk[], { alg, kid }: AssertionHeader): PublicJwk[] {
  return keys.filter((key) => isKeyFor(key, alg) && (kid === undefined || key.kid === undefined || key.kid === kid))
}

/** Whether any assertion may have been signed with a key: it is one for signatures, and for an algorithm known here. */
export function isAssertionKey(key: PublicJwk): boolean {
  return ASSERTION_ALGORITHMS.some((algorithm) => isKeyFor(key, algorithm))
}

/** Whether a client that has pinned its algorithm at registration may use another one: never. */
export function sameAlgorithm(one: string, other: string): boolean {
  return one === other || (isEdwards(one) && isEdwards(other))
}

/** The client that an assertion says it is from; nothing is proven yet. `undefined`: this is no assertion. */
export function claimedClientId(assertion: string): string | undefined {
  const [, payload] = /^[\w-]+\.([\w-]+)\.[\w-]*$/.exec(assertion) ?? []
  if (payload === undefined || assertion.length > LONGEST_ASSERTION) return undefined
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'))
    const { sub } = (claims ?? {}) as { sub?: unknown }
    return typeof sub === 'string' && sub !== '' && !sub.includes('\0') ? sub : undefined
  } catch {
    return undefined
  }
}

function isKeyFor(key: PublicJwk, algorithm: AssertionAlgorithm): boolean {
  return (
    fitsAlgorithm(key, algorithm) &&
    (key.alg === undefined || sameAlgorithm(key.alg, algorithm)) &&
    (key.use === undefined || key.use === 'sig') &&
    (key.key_ops === undefined || key.key_ops.includes('verify'))
  )
}

function fitsAlgorithm(key: PublicJwk, algorithm: AssertionAlgorithm): boolean {
  if (algorithm === 'ES256') return key.kty === 'EC' && key.crv === 'P-256'
  if (isEdwards(algorithm)) return key.kty === 'OKP' && key.crv === 'Ed25519'
  return key.kty === 'RSA'
}

function isEdwards(algorithm: string): boolean {
  return algorithm === 'EdDSA' || algorithm === 'Ed25519'
}
