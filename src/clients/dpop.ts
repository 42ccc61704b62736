import { calculateJwkThumbprint, decodeProtectedHeader, importJWK, jwtVerify } from 'jose'
import * as z from 'zod'
import type { Context } from '../context.ts'
import { DPOP_ALGORITHMS, type DpopVerdict, dpopNonces, judgeDpopClaims, PROOF_SECONDS } from '../protocol/dpop.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import type { ClientRow } from '../store/database.ts'
import { findServerSecret, insertServerSecret, type ServerSecret } from '../store/server-secret.ts'
import { claimJti } from '../store/used-jti.ts'
import { hashSecret, randomSecret } from '../tokens/secret.ts'
import { authenticationMethods } from './client-policy.ts'
import { publicKeySchema } from './public-key.ts'

/** A proof that is right in itself. It counts once: `acceptDpopProof` says whether this is the time. */
export interface DpopProof {
  /** thumbprint of the key whose possession it proves (RFC 7638) */
  jkt: string
  /** hash of what makes this proof the one that it is */
  key: Buffer
  /** for the `DPoP-Nonce` header: the client's next proof should hold it */
  nextNonce: string
}

/** Name of the secret that nonces are derived from. */
const NONCE_SECRET = 'dpop_nonce'

/** The most characters of a proof: one with an RSA key of 4096 bits has less than two thirds of it. */
const LONGEST_PROOF = 4096

const proofHeader = z.object({
  typ: z.literal('dpop+jwt'),
  alg: z.enum(DPOP_ALGORITHMS),
  jwk: publicKeySchema,
  crit: z.never().optional(), // no extension is understood here
})

const proofClaims = z.object({
  jti: z.string().min(1).max(256),
  htm: z.string(),
  htu: z.string(),
  iat: z.number(),
  nonce: z.string().optional(),
})

/**
 * Reads the proof of possession that a request carries (RFC 9449 §4.3); the address that it must be made for is
 * the public one, whatever the `Host` header says. A nonce of ours is always demanded (§8).
 *
 * Nothing is written, so that a client that must try again with a nonce has used up nothing.
 *
 * @param header the `DPoP` header; several are one text with commas, and so no JWT
 * @param request its method, and the endpoint below the issuer's path
 * @returns `undefined` when there is no such header
 * @throws {OAuthError} `invalid_dpop_proof`, `use_dpop_nonce`
 */
export async function readDpopProof(
  context: Context,
  header: string | string[] | undefined,
  request: { method: 'POST'; path: `/${string}` },
): Promise<DpopProof | undefined> {
  if (header === undefined) return undefined
  const { value: secret, now } = await nonceSecret(context)
  const nonces = dpopNonces(secret, now)
  const { jkt, claims } = await verify(String(header), now)
  const verdict = judgeDpopClaims(claims, {
    method: request.method,
    uri: context.config.issuer + request.path,
    now,
    nonces,
  })
  if (verdict !== 'good') throw refusal(verdict, nonces[0])
  return { jkt, key: hashSecret(`dpop ${jkt} ${request.path} ${claims.jti}`), nextNonce: nonces[0] }
}

/**
 * Lets a proof count, once (RFC 9449 §11.1): of any number of requests with the same one, on any replica, the
 * first passes.
 *
 * @returns thumbprint of the proven key; `undefined` without a proof
 * @throws {OAuthError} `invalid_dpop_proof` when it came before
 */
export async function acceptDpopProof({ db }: Context, proof: DpopProof | undefined): Promise<string | undefined> {
  if (proof === undefined || (await claimJti(db, proof.key, PROOF_SECONDS))) return proof?.jkt
  throw new OAuthError('invalid_dpop_proof', 'this DPoP proof came before', 'dpop_proof_replayed')
}

/** Refuses a request for tokens without a proof, when the client has said that it always sends one (RFC 9449 §5.2). */
export function demandDpopProof(client: ClientRow, proof: DpopProof | undefined): void {
  if (proof === undefined && client.dpop_bound_access_tokens) {
    throw new OAuthError('invalid_dpop_proof', 'this client has to send a DPoP proof', 'dpop_proof_missing')
  }
}

/** Whether what a client may refresh with is bound to its key: one that can do without a proof of its own (§5). */
export function bindsRefreshToken(client: ClientRow): boolean {
  return authenticationMethods(client).includes('none')
}

/** Verifies the signature with the key that the proof brings along. */
async function verify(proof: string, now: Date) {
  if (proof.length > LONGEST_PROOF) throw malformed('dpop_proof_too_long')
  try {
    const { alg, jwk } = proofHeader.parse(decodeProtectedHeader(proof))
    const key = await importJWK(jwk, alg)
    const { payload } = await jwtVerify(proof, key, { algorithms: [alg], typ: 'dpop+jwt', currentDate: now })
    return { jkt: await calculateJwkThumbprint(jwk), claims: proofClaims.parse(payload) }
  } catch {
    throw malformed('dpop_proof_malformed') // nothing of ours can fail in there
  }
}

function malformed(reason: string): OAuthError {
  return new OAuthError('invalid_dpop_proof', 'the DPoP header is not one well-formed and well-signed proof', reason)
}

const MESSAGES: Record<Exclude<DpopVerdict, 'good'>, string> = {
  'wrong-method': 'htm of the DPoP proof is not the method of this request',
  'wrong-uri': 'htu of the DPoP proof is not the address of this endpoint',
  stale: 'iat of the DPoP proof is too long ago',
  'from-the-future': 'iat of the DPoP proof is in the future',
  'nonce-missing': 'the DPoP proof needs the nonce of the DPoP-Nonce header',
  'nonce-wrong': 'the DPoP proof needs the nonce of the DPoP-Nonce header',
}

function refusal(verdict: Exclude<DpopVerdict, 'good'>, dpopNonce: string): OAuthError {
  const code = verdict.startsWith('nonce') ? 'use_dpop_nonce' : 'invalid_dpop_proof'
  return new OAuthError(code, MESSAGES[verdict], `dpop_proof_${verdict.replaceAll('-', '_')}`, { dpopNonce })
}

/** The secret is made by whichever replica needs it first. */
async function nonceSecret({ db }: Context): Promise<ServerSecret> {
  for (;;) {
    const secret = await findServerSecret(db, NONCE_SECRET)
    if (secret !== undefined) return secret
    await insertServerSecret(db, NONCE_SECRET, randomSecret())
  }
}
