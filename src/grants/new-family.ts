import { bindsRefreshToken } from '../clients/dpop.ts'
import type { Context } from '../context.ts'
import type { RefreshToken } from '../protocol/refresh-token.ts'
import type { ClientRow } from '../store/database.ts'
import type { NewFamily } from '../store/new-family.ts'
import { type HashedAccessToken, issueAccessToken } from '../tokens/access-token.ts'
import { firstRefreshToken } from '../tokens/pair.ts'
import { hashSecret, orderedHash, orderedId } from '../tokens/secret.ts'

/** A token family that is about to be stored, with the pair that the client gets if it is. */
export interface PreparedFamily {
  family: NewFamily
  accessToken: HashedAccessToken
  /** `undefined` when the client may not refresh */
  refreshToken: RefreshToken | undefined
}

/** Makes the first pair of a new token family. */
export function prepareFamily({ config }: Context, client: ClientRow, dpopJkt: string | undefined): PreparedFamily {
  const accessToken = issueAccessToken()
  const refreshToken = client.grant_types.includes('refresh_token') ? firstRefreshToken() : undefined
  const family = {
    familyId: orderedId(),
    refreshToken: refreshToken && {
      lineageHash: orderedHash(refreshToken.lineage),
      secretHash: hashSecret(refreshToken.secret),
    },
    accessTokenHash: accessToken.hash,
    dpopJkt,
    bindsRefreshToken: bindsRefreshToken(client),
    accessTokenSeconds: config.accessTokenSeconds,
    refreshTokenSeconds: config.refreshTokenSeconds,
    familySeconds: config.familySeconds,
  }
  return { family, accessToken, refreshToken }
}
