import { timingSafeEqual } from 'node:crypto'

const LINEAGE_LENGTHS = [35, 32] // bytes: with the minute, and without, as before decision 0019
const GENERATION_BYTES = 4
export const SECRET_BYTES = 16

/** The most superseded generations that can still converge: what a family's row keeps. */
export const SUPERSEDED_KEPT = 8

/** The three parts of a refresh token. */
export interface RefreshToken {
  /** minute and 32 random bytes (those alone before decision 0019), the same for the whole family: finds it */
  lineage: Buffer
  /** counts the rotations */
  generation: number
  /** 16 bytes, new for each generation: proves that this generation was issued */
  secret: Buffer
}

/** Packs the parts; the result goes into a credential with prefix and checksum. */
export function encodeRefreshToken(token: RefreshToken): Buffer {
  const generation = Buffer.allocUnsafe(GENERATION_BYTES)
  generation.writeUInt32BE(token.generation)
  return Buffer.concat([token.lineage, generation, token.secret])
}

/** Unpacks the parts, or says `undefined` when the length is wrong. */
export function decodeRefreshToken(bytes: Buffer): RefreshToken | undefined {
  const lineageBytes = bytes.length - GENERATION_BYTES - SECRET_BYTES
  if (!LINEAGE_LENGTHS.includes(lineageBytes)) return undefined
  return {
    lineage: bytes.subarray(0, lineageBytes),
    generation: bytes.readUInt32BE(lineageBytes),
    secret: bytes.subarray(lineageBytes + GENERATION_BYTES),
  }
}

/** What the family's row says, as far as the judgement needs it. */
export interface JudgedFamily {
  clientId: string
  /** the family has been ended, or its client or its user disabled */
  ended: boolean
  /** idle or absolute lifetime is over */
  expired: boolean
  generation: number
  secretHash: Buffer
  /** thumbprint of the key that its refresh tokens are bound to (RFC 9449 §5), from this generation on */
  familyDpopJkt: string | null
  dpopGeneration: number
  /** the generations whose grace window is still open, newest first */
  superseded: { generation: number; secretHash: Buffer }[]
}

export type RefreshTokenVerdict =
  | 'unknown'
  | 'wrong-client'
  | 'wrong-key'
  | 'ended'
  | 'expired'
  | 'current'
  | 'converge'
  | 'replayed'
  | 'forged'

/**
 * Decides what to do with a presented refresh token, when its rotation changed no row.
 *
 * Ownership is judged first, so that another client can't end this family, and neither can whoever found a
 * bound token but has no such key. A token superseded within the grace window converges on the current pair, if
 * its secret is right; anything else proves that a second party holds the lineage, and ends the family. Age is
 * counted in generations, never in seconds.
 *
 * A family may become bound at a refresh. A token from before that, which comes without the key, was rotated by
 * somebody else: two parties hold it, and they can't converge.
 *
 * @param family `undefined` when no family has this lineage
 * @param presented with the SHA-256 of its secret, and the thumbprint of the key whose possession was proven
 * @returns `current` when the token is the newest one, so that something else in the request kept it from rotating
 * @see RFC 9700 §4.14.2
 */
export function judgeRefreshToken(
  family: JudgedFamily | undefined,
  presented: { generation: number; secretHash: Buffer; dpopJkt?: string | undefined },
  clientId: string,
): RefreshTokenVerdict {
  if (family === undefined) return 'unknown'
  if (family.clientId !== clientId) return 'wrong-client'
  const rightKey = family.familyDpopJkt === null || family.familyDpopJkt === presented.dpopJkt
  if (!rightKey && presented.generation >= family.dpopGeneration) return 'wrong-key'
  if (family.ended) return 'ended'
  if (family.expired) return 'expired'
  if (presented.generation > family.generation) return 'unknown'
  if (presented.generation === family.generation) {
    return timingSafeEqual(family.secretHash, presented.secretHash) ? 'current' : 'forged'
  }
  const superseded = family.superseded.find((one) => one.generation === presented.generation)
  if (superseded === undefined || !rightKey) return 'replayed'
  return timingSafeEqual(superseded.secretHash, presented.secretHash) ? 'converge' : 'forged'
}
