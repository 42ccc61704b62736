import type { Context } from '../context.ts'
import type { IssuedAccessToken } from '../store/access-token.ts'
import type { TokenFormat } from '../store/database.ts'
import { credentialHash, hashSecret } from './secret.ts'

/**
 * What the client gets as its access token: the credential itself, or for a resource server that wants it, a JWT
 * (RFC 9068) that refers to the stored token by the hash of the credential, which then never leaves the server.
 */
export async function accessTokenText(
  context: Context,
  clientId: string,
  credential: string,
  issued: IssuedAccessToken,
): Promise<string> {
  if (issued.tokenFormat === 'opaque') return credential
  return context.keys.signAccessToken(clientId, hashSecret(credential).toString('base64url'), issued)
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
  if (!isJwt(presented)) return credentialHash('accessToken', presented)
  const reference = await context.keys.readAccessToken(presented)
  return reference === undefined ? undefined : Buffer.from(reference, 'base64url')
}
