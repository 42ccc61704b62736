import { randomUUID } from 'node:crypto'
import { type CryptoKey, calculateJwkThumbprint, exportJWK, generateKeyPair, SignJWT } from 'jose'
import type { TestPostern } from './postern.ts'

/** A client's key, and what proves that the client has it (RFC 9449). */
export interface ProofKey {
  jkt: string
  privateKey: CryptoKey
  /** the public key, as proofs carry it */
  jwk: object
  alg: string
}

export async function createProofKey(alg = 'ES256'): Promise<ProofKey> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true })
  const jwk = await exportJWK(publicKey)
  return { jkt: await calculateJwkThumbprint(jwk), privateKey, jwk, alg }
}

/**
 * A proof for the token endpoint.
 *
 * @param claims that differ; the nonce is fetched unless it is among them; `undefined` leaves a claim out
 */
export async function prove(
  postern: Pick<TestPostern, 'issuer'>,
  key: ProofKey,
  claims: Record<string, unknown> = {},
  header: Record<string, unknown> = {},
): Promise<string> {
  const nonce = 'nonce' in claims ? claims.nonce : await fetchNonce(postern)
  const all = { jti: randomUUID(), htm: 'POST', htu: `${postern.issuer}/token`, iat: Math.floor(Date.now() / 1000) }
  return new SignJWT({ ...all, ...claims, nonce })
    .setProtectedHeader({ typ: 'dpop+jwt', alg: key.alg, jwk: key.jwk, ...header })
    .sign(key.privateKey, { crit: { x: true } })
}

/** The `DPoP` header with a proof. */
export async function proofHeader(...parameters: Parameters<typeof prove>): Promise<{ dpop: string }> {
  return { dpop: await prove(...parameters) }
}

const stranger = createProofKey()

/** A nonce of the server: what it answers to a proof without one (RFC 9449 §8). */
export async function fetchNonce(postern: Pick<TestPostern, 'issuer'>): Promise<string> {
  const headers = { dpop: await prove(postern, await stranger, { nonce: undefined }) }
  const response = await fetch(`${postern.issuer}/token`, { method: 'POST', body: new URLSearchParams(), headers })
  const nonce = response.headers.get('dpop-nonce')
  if (nonce === null) throw new Error(`no nonce: ${await response.text()}`)
  return nonce
}
