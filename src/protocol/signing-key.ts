/** Algorithms of signing keys: ECDSA on P-256, Ed25519, RSA with SHA-256 (RFC 7518 §3.1, RFC 8037 §3.1). */
export const SIGNING_ALGORITHMS = ['ES256', 'EdDSA', 'RS256'] as const

export type SigningAlgorithm = (typeof SIGNING_ALGORITHMS)[number]

/** How long /jwks may be cached: a key that was withdrawn in an emergency is believed for this long at most. */
export const JWKS_CACHE_SECONDS = 300

/**
 * How long a new key is published before it signs. Whoever caches /jwks as its headers allow has fetched it by
 * then, with two more chances if a fetch fails; so have libraries that cache for ten minutes whatever they are
 * told, such as jose.
 */
export const PUBLISHED_BEFORE_SECONDS = 900

/** Beyond the last token of a key: clocks differ, and a replica reads the keys anew every few seconds alone. */
export const KEY_SLACK_SECONDS = 300

/** `typ` of JWTs that we sign: one is never taken for the other (RFC 8725 §3.11). */
export const ACCESS_TOKEN_TYPE = 'at+jwt' // RFC 9068 §2.1
export const INTROSPECTION_TYPE = 'token-introspection+jwt' // RFC 9701 §5

/**
 * Chooses the key that signs at an instant: the newest whose time has come. Keys whose private part is gone
 * can't sign. When the time of none has come, which a coarse clock may say of a key made just now, the first.
 *
 * @param keys in the order in which they begin to sign
 * @param atSeconds by the database's clock, since 1970
 */
export function chooseSigningKey<K extends { signsFromSeconds: number; canSign: boolean }>(
  keys: readonly K[],
  atSeconds: number,
): K | undefined {
  const able = keys.filter(({ canSign }) => canSign)
  return able.findLast(({ signsFromSeconds }) => signsFromSeconds <= atSeconds) ?? able[0]
}

/** What an access token says (RFC 9068 §2.2). Instants are seconds since 1970. */
export interface AccessTokenClaims {
  iss: string
  exp: number
  aud: string
  sub: string
  client_id: string
  iat: number
  jti: string
  scope: string
  /** the key that the token is bound to (RFC 9449 §6.1) */
  cnf?: { jkt: string }
}

/** What was issued to a client, and under which reference it is stored. */
interface IssuedToken {
  clientId: string
  reference: string
  userId: string | null
  resourceUri: string
  scope: string
  issuedAtSeconds: number
  expiresAtSeconds: number
  dpopJkt: string | null
}

/** The claims of an access token that was issued. */
export function accessTokenClaims(issuer: string, token: IssuedToken): AccessTokenClaims {
  return {
    iss: issuer,
    exp: token.expiresAtSeconds,
    aud: token.resourceUri,
    sub: token.userId ?? token.clientId, // RFC 9068 §2.2
    client_id: token.clientId,
    iat: token.issuedAtSeconds,
    jti: token.reference,
    scope: token.scope,
    ...(token.dpopJkt === null ? {} : { cnf: { jkt: token.dpopJkt } }),
  }
}
