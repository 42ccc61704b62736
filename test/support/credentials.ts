import { decodeRefreshToken, encodeRefreshToken, type RefreshToken } from '../../src/protocol/refresh-token.ts'
import { decodeCredential, encodeCredential, orderedHash } from '../../src/tokens/secret.ts'

/** Basic credentials, raw (RFC 6749 §2.3.1). */
export function basic(id: string, secret: string): string {
  return `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`
}

/** Basic credentials with everything encoded that is not a letter or a digit, as openid-client sends them. */
export function basicEncoded(id: string, secret: string): string {
  const encode = (text: string) =>
    text.replaceAll(/[^A-Za-z0-9]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`)
  return basic(encode(id), encode(secret))
}

/** The hash under which an access token that Postern issued is stored. */
export function storedHash(accessToken: string): Buffer {
  return orderedHash(decodeCredential('accessToken', accessToken) ?? Buffer.alloc(0), accessToken)
}

/** The parts of a refresh token that Postern issued. */
export function partsOf(refreshToken: string): RefreshToken {
  const parts = decodeRefreshToken(decodeCredential('refreshToken', refreshToken) ?? Buffer.alloc(0))
  if (parts === undefined) throw new Error(`not a refresh token: ${refreshToken}`)
  return parts
}

/** A refresh token with some of its parts replaced, and a right checksum. */
export function forge(refreshToken: string, changes: Partial<RefreshToken>): string {
  return encodeCredential('refreshToken', encodeRefreshToken({ ...partsOf(refreshToken), ...changes }))
}
