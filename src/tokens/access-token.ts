import type { Context } from '../context.ts'
import type { IssuedAccessToken } from '../store/access-token.ts'
import type { TokenFormat } from '../store/database.ts'
import { decodeCredential, encodeCredential, orderedHash, orderedSecret } from './secret.ts'

/** An access token with the hash under which it is stored. */
export interface HashedAccessToken {
  text: string
  hash: Buffer
}

/** A new access token. */
export function issueAccessToken(): HashedAccessToken {
  return hashedAccessToken(orderedSecret())
}

/** The access token with this content: 256 secret bits, behind a minute but for those of old pair keys. */
export function hashedAccessToken(content: Buffer): HashedAccessToken {
  const text = encodeCredential('accessToken', content)
  return { text, hash: orderedHash(content, text) }
}

/**
 * What the client gets as its access token: the credential itself, or for a resource server that wants it, a JWT
 * (RFC 9068) that refers to the stored token by the hash of the credential, which then never leaves the server.
 */
export async function accessTokenText(
  context: Context,
  clientId: string,
  credential: HashedAccessToken,
  issued: IssuedAccessToken,
): Promise<string> {
  if (issued.tokenFormat === 'opaque') return credential.text
  return context.keys.signAccessToken(clientId, credential.hash.toString('base64url'), issued)
}

/**
 * Whether a resource server with this format accepts a token in the form in which it is presented. A JWT counts
 * where JWTs are issued alone: what it refers to is stored, and so is the key that signed it, so that a dump of
 * the database would otherwise turn opaque tokens into JWTs. An opaque token is never in a dump.
 */
export function mayBePresented(presented: string, tokenFormat: TokenFormat): boolean {
  return tokenFormat === 'jwt' || !isJwt(presented)
}

function isJwt(presented: string): boolean {
  return presented.includes('.') // no credential has a dot
}

/** The hash under which a presented access token is stored, or `undefined` when it can't be one of ours. */
export async function accessTokenHash(context: Context, presented: string): Promise<Buffer | undefined> {
  if (!isJwt(presented)) {
    const content = decodeCredential('accessToken', presented)
    return content && orderedHash(content, presented)
  }
  const reference = await context.keys.readAccessToken(presented)
  return reference === undefined ? undefined : Buffer.from(reference, 'base64url')
}
