import type { Context } from '../context.ts'
import { encodeRefreshToken, type RefreshToken, SECRET_BYTES } from '../protocol/refresh-token.ts'
import type { IssuedAccessToken } from '../store/access-token.ts'
import { accessTokenText } from './access-token.ts'
import { encodeCredential, randomSecret, seal, unseal } from './secret.ts'

/** Successful token response (RFC 6749 §5.1). */
export interface TokenResponse {
  access_token: string
  token_type: 'Bearer' | 'DPoP'
  /** seconds */
  expires_in: number
  refresh_token?: string
  scope: string
}

/**
 * The token response for what the database says was issued.
 *
 * @param credential the random value whose hash is stored; the access token itself, or what a JWT refers to
 */
export async function tokenResponse(
  context: Context,
  clientId: string,
  credential: string,
  issued: IssuedAccessToken,
  refreshToken: RefreshToken | undefined,
): Promise<TokenResponse> {
  return {
    access_token: await accessTokenText(context, clientId, credential, issued),
    token_type: issued.dpopJkt === null ? 'Bearer' : 'DPoP', // RFC 9449 §5
    expires_in: issued.expiresInSeconds,
    ...(refreshToken === undefined
      ? {}
      : { refresh_token: encodeCredential('refreshToken', encodeRefreshToken(refreshToken)) }),
    scope: issued.scope,
  }
}

/** The first refresh token of a new family. */
export function firstRefreshToken(): RefreshToken {
  return { lineage: randomSecret(), generation: 0, secret: randomSecret(SECRET_BYTES) }
}

/** The refresh token that follows one in its family. */
export function nextRefreshToken(token: RefreshToken): RefreshToken {
  return { lineage: token.lineage, generation: token.generation + 1, secret: randomSecret(SECRET_BYTES) }
}

/**
 * Seals a pair for those who present a superseded token of the same family, so that refresh converges. It
 * opens with the lineage secret alone, which the database doesn't hold, and for this generation alone.
 */
export function sealPair(accessToken: string, refreshToken: RefreshToken): Buffer {
  const plain = `${refreshToken.secret.toString('base64url')} ${accessToken}`
  return seal(refreshToken.lineage, String(refreshToken.generation), plain)
}

/** Opens the current pair of the family with this lineage. */
export function unsealPair(
  sealed: Buffer,
  lineage: Buffer,
  generation: number,
): { accessToken: string; refreshToken: RefreshToken } {
  const [secret = '', accessToken = ''] = unseal(lineage, String(generation), sealed).split(' ')
  return { accessToken, refreshToken: { lineage, generation, secret: Buffer.from(secret, 'base64url') } }
}
