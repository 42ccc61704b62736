import { randomUUID } from 'node:crypto'
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, type JWTHeaderParameters, SignJWT } from 'jose'
import { post } from './flow.ts'
import type { TestPostern } from './postern.ts'

/** Where clients of `registerWithKeys` are answered. */
export const REDIRECT_URI = 'https://app.example/callback'

/** A key of a client that authenticates with one. */
export interface ClientKey {
  algorithm: string
  privateKey: CryptoKey
  /** with `kid` */
  publicJwk: JWK
}

/** Makes a key. */
export async function makeKey(algorithm: string = 'ES256', kid: string = randomUUID()): Promise<ClientKey> {
  const { privateKey, publicKey } = await generateKeyPair(algorithm, { extractable: true })
  return { algorithm, privateKey, publicJwk: { ...(await exportJWK(publicKey)), kid } }
}

/** The form fields of an assertion, as a client makes it; with `claims` and `header` it is made wrong. */
export async function assertionBy(
  postern: Pick<TestPostern, 'issuer'>,
  clientId: string,
  key: ClientKey,
  claims: Record<string, unknown> = {},
  header: Partial<JWTHeaderParameters> = {},
): Promise<{ client_assertion_type: string; client_assertion: string }> {
  const now = Math.floor(Date.now() / 1000)
  const all = {
    iss: clientId,
    sub: clientId,
    aud: postern.issuer,
    jti: randomUUID(),
    iat: now,
    exp: now + 60,
    ...claims,
  }
  const assertion = await new SignJWT(JSON.parse(JSON.stringify(all)))
    .setProtectedHeader({ alg: key.algorithm, kid: key.publicJwk.kid as string, ...header })
    .sign(key.privateKey)
  return asAssertion(assertion)
}

/** The form fields that carry a JWT as an assertion (RFC 7523 §2.2). */
export function asAssertion(jwt: string): { client_assertion_type: string; client_assertion: string } {
  return { client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer', client_assertion: jwt }
}

/** Registers a client that authenticates with a key. */
export async function registerWithKeys(
  postern: TestPostern,
  metadata: object,
): Promise<{ client_id: string; [member: string]: unknown }> {
  const response = await fetch(`${postern.issuer}/register`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ redirect_uris: [REDIRECT_URI], token_endpoint_auth_method: 'private_key_jwt', ...metadata }),
  })
  const body = (await response.json()) as { client_id: string }
  return { status: response.status, ...body }
}

/** What the token endpoint says about an assertion: a refresh token that is unknown is as far as a good one gets. */
export async function judgedAs(postern: TestPostern, fields: Record<string, string>): Promise<string> {
  const { status, body } = await post(postern, '/token', {
    grant_type: 'refresh_token',
    refresh_token: 'unknown',
    ...fields,
  })
  return `${status} ${body.error}`
}

export const ACCEPTED = '400 invalid_grant'
export const REFUSED = '401 invalid_client'
