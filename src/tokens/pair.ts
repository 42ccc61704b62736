import type { Context } from '../context.ts'
import { encodeRefreshToken, type RefreshToken, SECRET_BYTES } from '../protocol/refresh-token.ts'
import type { IssuedAccessToken } from '../store/access-token.ts'
import { PAIR_KEY_SECONDS, type PairKey } from '../store/token-family.ts'
import { accessTokenText, type HashedAccessToken, hashedAccessToken } from './access-token.ts'
import { encodeCredential, hashSecret, minuteOf, orderedSecret, randomId, randomSecret } from './secret.ts'

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
 * @param credential the access token itself, or what a JWT refers to
 */
export async function tokenResponse(
  context: Context,
  clientId: string,
  credential: HashedAccessToken,
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
  return { lineage: orderedSecret(), generation: 0, secret: randomSecret(SECRET_BYTES) }
}

let pairKey: (PairKey & { since: number }) | undefined

/**
 * The secret that pairs are derived from right now, beside their lineage secret. Each process has its own, and a new one
 * each minute: so it can be erased, for all families at once, when no superseded token converges on their pairs any more.
 */
export function currentPairKey(): PairKey {
  const now = performance.now()
  if (pairKey === undefined || now - pairKey.since >= PAIR_KEY_SECONDS * 1000) {
    pairKey = { id: randomId(), key: orderedSecret(), since: now } // the minute is that of the access tokens
  }
  return pairKey
}

/**
 * The pair of a generation, from the family's lineage secret, which the database doesn't hold, and the key that the
 * database keeps while superseded tokens converge on this pair. Neither tells anything without the other. The access token
 * has the minute of the key, not of the moment: so convergence derives the same.
 */
export function derivePair(
  lineage: Buffer,
  generation: number,
  key: Buffer,
): { accessToken: HashedAccessToken; refreshToken: RefreshToken } {
  const derive = (use: string) =>
    hashSecret(Buffer.concat([Buffer.from(`postern ${use} ${generation} `), lineage, key]))
  return {
    accessToken: hashedAccessToken(Buffer.concat([minuteOf(key), derive('access token')])),
    refreshToken: { lineage, generation, secret: derive('refresh token').subarray(0, SECRET_BYTES) },
  }
}
