import { compactVerify, decodeProtectedHeader, importJWK } from 'jose'
import * as z from 'zod'
import type { Context } from '../context.ts'
import {
  ASSERTION_ALGORITHMS,
  type AssertionClaims,
  type AssertionHeader,
  candidateKeys,
  judgeAssertionClaims,
  type PublicJwk,
  sameAlgorithm,
  secondsToRemember,
} from '../protocol/client-assertion.ts'
import { type ClientRow, readDatabaseClock } from '../store/database.ts'
import { claimJti } from '../store/used-jti.ts'
import { hashSecret } from '../tokens/secret.ts'
import { findKeys } from './key-set.ts'

/** Types of JWT that an assertion may say it is: not one that was made for something else (RFC 8725 §3.11). */
const TYPES = ['jwt', 'client-authentication+jwt']

const assertionHeader = z.object({
  alg: z.enum(ASSERTION_ALGORITHMS),
  kid: z.string().max(256).optional(),
  typ: z
    .string()
    .refine((type) => TYPES.includes(type.toLowerCase().replace(/^application\//, '')))
    .optional(),
  crit: z.never().optional(), // no extension is understood here
})

/** Keys that are tried for one assertion: a client with more of the same name has to tidy up. */
const MOST_TRIED = 10

const seconds = z.number().min(0).max(1e11)

const assertionClaims = z.object({
  iss: z.string(),
  sub: z.string(),
  aud: z.union([z.string(), z.array(z.string()).min(1).max(20)]),
  jti: z.string().min(1).max(512),
  exp: seconds,
  nbf: seconds.optional(),
  iat: seconds.optional(),
})

/**
 * Judges whether an assertion proves that a client sends the request (RFC 7523 §3). It counts once: of any number
 * of requests with the same one, on any replica, the first passes.
 *
 * The key comes from what the client has published, never from the assertion; the algorithm must be one for it.
 *
 * @param network that the request comes from
 * @returns `undefined` when it proves its client, or else the reason for the log
 * @throws {OAuthError} `temporarily_unavailable` when the client's keys can't be fetched
 */
export async function judgeAssertion(
  context: Context,
  client: ClientRow,
  assertion: string,
  network: string,
): Promise<string | undefined> {
  const header = readHeader(assertion)
  if (header === undefined) return 'client_assertion_header_refused'
  const pinned = client.token_endpoint_auth_signing_alg
  if (pinned !== null && !sameAlgorithm(pinned, header.alg)) return 'client_assertion_algorithm_wrong'
  const claims = await verify(assertion, header, await findCandidates(context, client, header, network))
  if (typeof claims === 'string') return claims
  const now = await readDatabaseClock(context.db)
  const verdict = judgeAssertionClaims(claims, { clientId: client.id, audiences: audiencesOf(context), now })
  if (verdict !== 'good') return `client_assertion_${verdict.replaceAll('-', '_')}`
  const key = hashSecret(`client_assertion ${JSON.stringify([client.id, claims.jti])}`)
  const isFirst = await claimJti(context.db, key, secondsToRemember(claims, now))
  return isFirst ? undefined : 'client_assertion_replayed'
}

/** The issuer, as it should be; endpoints, since many clients name the one that they call (RFC 9126 §2). */
function audiencesOf({ config: { issuer } }: Context): string[] {
  return [issuer, ...['token', 'par', 'revoke', 'device_authorization'].map((endpoint) => `${issuer}/${endpoint}`)]
}

async function findCandidates(
  context: Context,
  client: ClientRow,
  header: AssertionHeader,
  network: string,
): Promise<PublicJwk[]> {
  const choose = (keys: PublicJwk[]) => candidateKeys(keys, header)
  if (client.jwks_uri !== null) return findKeys(context, client.jwks_uri, network, choose)
  return choose(client.jwks ?? [])
}

function readHeader(assertion: string): AssertionHeader | undefined {
  try {
    return assertionHeader.parse(decodeProtectedHeader(assertion))
  } catch {
    return undefined
  }
}

/** The claims, if one of the keys has signed them; otherwise the reason for the log. */
async function verify(
  assertion: string,
  { alg }: AssertionHeader,
  keys: PublicJwk[],
): Promise<AssertionClaims | string> {
  if (keys.length === 0) return 'client_assertion_key_unknown'
  for (const key of keys.slice(0, MOST_TRIED)) {
    const payload = await verifyWith(assertion, key, alg)
    if (payload !== undefined) return readClaims(payload) ?? 'client_assertion_claims_malformed'
  }
  return 'client_assertion_signature_wrong'
}

async function verifyWith(assertion: string, key: PublicJwk, algorithm: string): Promise<Uint8Array | undefined> {
  try {
    const { kty, crv, n, e, x, y } = key
    const imported = await importJWK(JSON.parse(JSON.stringify({ kty, crv, n, e, x, y })), algorithm)
    return (await compactVerify(assertion, imported, { algorithms: [algorithm] })).payload
  } catch {
    return undefined // nothing of ours can fail in there
  }
}

function readClaims(payload: Uint8Array): AssertionClaims | undefined {
  try {
    return assertionClaims.parse(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload)))
  } catch {
    return undefined
  }
}
