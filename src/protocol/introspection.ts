/** What a resource server learns about a token (RFC 7662 §2.2). Instants are seconds since 1970. */
export type IntrospectionResponse =
  | { active: false }
  | {
      active: true
      iss: string
      sub: string
      username: string
      aud: string
      client_id: string
      scope: string
      exp: number
      iat: number
      token_type: 'Bearer'
    }

/** What is stored about a token that holds. */
interface HoldingToken {
  clientId: string
  userId: string
  username: string
  scope: string
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
    sub: token.userId,
    username: token.username,
    aud: resource,
    client_id: token.clientId,
    scope: token.scope,
    exp: token.expiresAtSeconds,
    iat: token.issuedAtSeconds,
    token_type: 'Bearer',
  }
}
