/** The longest lifetime of an access token. For so long it must be known whether its family was ended. */
export const LONGEST_ACCESS_TOKEN_SECONDS = 86_400

/** Media type of an answer that is signed (RFC 9701 §4). */
export const SIGNED_INTROSPECTION = 'application/token-introspection+jwt'

/** Whether a resource server asks for a signed answer by name, and not less than for a plain one (RFC 9110 §12.5.1). */
export function wantsSignedIntrospection(accept: string | undefined): boolean {
  if (accept === undefined || !accept.toLowerCase().includes(SIGNED_INTROSPECTION)) return false
  const weights = new Map<string, number>()
  for (const range of accept.toLowerCase().split(',')) {
    const [type = '', ...parameters] = range.split(';').map((part) => part.trim())
    const weight = parameters.find((parameter) => parameter.startsWith('q='))?.slice(2)
    weights.set(type, weight === undefined ? 1 : Number(weight) || 0)
  }
  const signed = weights.get(SIGNED_INTROSPECTION) ?? 0
  return signed > 0 && signed >= (weights.get('application/json') ?? 0)
}

/** What a resource server learns about a token (RFC 7662 §2.2). Instants are seconds since 1970. */
export type IntrospectionResponse =
  | { active: false }
  | {
      active: true
      iss: string
      sub: string
      /** absent for a token that a client got for itself */
      username: string | undefined
      aud: string
      client_id: string
      scope: string
      exp: number
      iat: number
      token_type: 'Bearer' | 'DPoP'
      /** the key that the token is bound to (RFC 9449 §6.2) */
      cnf: { jkt: string } | undefined
    }

/** What is stored about a token that holds. */
interface HoldingToken {
  clientId: string
  userId: string | null
  username: string | null
  scope: string
  dpopJkt: string | null
  issuedAtSeconds: number
  expiresAtSeconds: number
}

/** The answer about a token; about one that doesn't hold, it says nothing more (RFC 7662 §2.2). */
export function introspectionResponse(
  token: HoldingToken | undefined,
  issuer: string,
  resource: string,
): IntrospectionResponse {
  if (token === undefined) return { active: false }
  return {
    active: true,
    iss: issuer,
    sub: token.userId ?? token.clientId, // RFC 9068 §2.2
    username: token.username ?? undefined,
    aud: resource,
    client_id: token.clientId,
    scope: token.scope,
    exp: token.expiresAtSeconds,
    iat: token.issuedAtSeconds,
    token_type: token.dpopJkt === null ? 'Bearer' : 'DPoP',
    cnf: token.dpopJkt === null ? undefined : { jkt: token.dpopJkt },
  }
}
