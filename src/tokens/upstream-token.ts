import type { SealedUpstreamTokens, UpstreamTokenKey } from '../store/upstream-token.ts'
import { type EncryptionKeys, openText, sealText } from './encryption.ts'

/** What a provider's token endpoint answered (RFC 6749 §5.1). */
export interface UpstreamTokens {
  access_token: string
  refresh_token?: string | undefined
  expires_in?: number | undefined
  scope?: string | undefined
}

/** A lifetime that is longer is none: Postgres could not add it to an instant. */
const LONGEST_SECONDS = 10 * 365 * 86_400

type Kind = 'access_token' | 'refresh_token'

/** Seals what a provider issued; what it says beside the tokens is kept as far as it makes sense. @throws {EncryptionKeyError} when there is no key */
export function sealUpstreamTokens(
  keys: EncryptionKeys,
  key: UpstreamTokenKey,
  tokens: UpstreamTokens,
): SealedUpstreamTokens {
  const accessToken = sealText(keys, boundTo(key, 'access_token'), tokens.access_token)
  return {
    ...key,
    accessToken: accessToken.sealed,
    refreshToken:
      tokens.refresh_token === undefined
        ? undefined
        : sealText(keys, boundTo(key, 'refresh_token'), tokens.refresh_token).sealed,
    sealedWith: accessToken.sealedWith,
    scope: tokens.scope?.replaceAll('\0', ''), // Postgres refuses it in a text
    expiresInSeconds: isLifetime(tokens.expires_in) ? tokens.expires_in : undefined,
  }
}

/** Opens a token that was sealed as this kind for this person and provider. @throws {EncryptionKeyError} */
export function openUpstreamToken(keys: EncryptionKeys, key: UpstreamTokenKey, kind: Kind, sealed: Buffer): string {
  return openText(keys, boundTo(key, kind), sealed)
}

function boundTo({ userId, providerId }: UpstreamTokenKey, kind: Kind): string {
  return `upstream_token ${kind} ${providerId} ${userId}`
}

function isLifetime(seconds: number | undefined): boolean {
  return seconds !== undefined && seconds >= 0 && seconds <= LONGEST_SECONDS
}
