import type { Context } from '../context.ts'
import { encodeRefreshToken, type RefreshToken, SECRET_BYTES } from '../protocol/refresh-token.ts'
import type { IssuedAccessToken } from '../store/access-token.ts'
import { accessTokenText } from './access-token.ts'
import { encodeCredential, hashSecret, randomSecret } from './secret.ts'

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

const SALT_BYTES = 16

/** What a pair is derived from, beside the lineage secret: new for each rotation. */
export function newSalt(): Buffer {
  return randomSecret(SALT_BYTES)
}

/**
 * The pair of a generation, from the family's lineage secret, which the database doesn't hold, and the salt that the
 * database keeps while superseded tokens converge on this pair. Neither tells anything without the other.
 */
export function derivePair(
  lineage: Buffer,
  generation: number,
  salt: Buffer,
): { accessToken: string; refreshToken: RefreshToken } {
  const derive = (use: string) =>
    hashSecret(Buffer.concat([Buffer.from(`postern ${use} ${generation} `), lineage, salt]))
  return {
    accessToken: encodeCredential('accessToken', derive('access token')),
    refreshToken: { lineage, generation, secret: derive('refresh token').subarray(0, SECRET_BYTES) },
  }
}
