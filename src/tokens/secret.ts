import { hash, randomBytes, randomUUID, timingSafeEqual } from 'node:crypto'
import { crc32 } from 'node:zlib'

/**
 * The kinds of credentials, each with its own prefix: secret scanners find them, and one kind is never
 * taken for another.
 */
export const CREDENTIAL_PREFIXES = {
  accessToken: 'postern_at_',
  refreshToken: 'postern_rt_',
  authorizationCode: 'postern_ac_',
  clientSecret: 'postern_cs_',
  resourceSecret: 'postern_rs_',
  registrationToken: 'postern_rg_',
  pushedRequest: 'postern_pr_',
  deviceCode: 'postern_dc_',
  upstreamHandle: 'postern_uh_',
  session: 'postern_ss_',
  knownBrowser: 'postern_kb_',
  setupLink: 'postern_su_',
} as const

export type CredentialKind = keyof typeof CREDENTIAL_PREFIXES

const CREDENTIAL_BYTES = 32
const CHECKSUM_LENGTH = 6 // the base64url of four bytes

/** Random bytes are read by the page: reading a few costs as much. */
const RANDOM_PAGE_BYTES = 4096
let randomPage = Buffer.alloc(0)

/** Random bytes, none of which is handed out twice, on a page with others: `buffer` shows those, too. With the functions of identifiers, the one place where randomness is read. */
export function randomSecret(bytes: number = CREDENTIAL_BYTES): Buffer {
  if (bytes > randomPage.length) randomPage = randomBytes(Math.max(bytes, RANDOM_PAGE_BYTES))
  const secret = randomPage.subarray(0, bytes)
  randomPage = randomPage.subarray(bytes)
  return secret
}

/** A new identifier that needn't be secret. */
export function randomId(): string {
  return randomUUID()
}

const processMark = randomBytes(2)

/**
 * A new identifier that follows those before it, for rows that come by the million: an index then takes new ones side by
 * side, not each on a page of its own. A UUID of version 8 (RFC 9562 §5.8): a mark of this process, how long it has run
 * in hundredths of a second, and 74 random bits.
 */
export function orderedId(): string {
  const bytes = Buffer.from(randomSecret(16))
  processMark.copy(bytes)
  bytes.writeUInt32BE(Math.floor(performance.now() / 10) % 2 ** 32, processMark.length)
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x80, 6) // version
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8) // variant
  const hex = bytes.toString('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}

/** Whether a text can be such an identifier. */
export function isId(text: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text)
}

/** A new credential of 256 random bits: prefix, base64url, checksum; unreserved characters only (RFC 3986 §2.3). */
export function issueCredential(kind: CredentialKind): string {
  return encodeCredential(kind, randomSecret())
}

/** The text form of a credential with the given content. */
export function encodeCredential(kind: CredentialKind, content: Buffer): string {
  const body = CREDENTIAL_PREFIXES[kind] + content.toString('base64url')
  return body + checksum(body)
}

/** The content of a presented credential, or `undefined` when it can't have been issued as this kind. */
export function decodeCredential(kind: CredentialKind, text: string): Buffer | undefined {
  if (!isCredential(kind, text)) return undefined
  return Buffer.from(text.slice(CREDENTIAL_PREFIXES[kind].length, -CHECKSUM_LENGTH), 'base64url')
}

/** Whether a text can have been issued as this kind. */
function isCredential(kind: CredentialKind, text: string): boolean {
  if (!text.startsWith(CREDENTIAL_PREFIXES[kind]) || text.length > 256) return false
  return text.endsWith(checksum(text.slice(0, -CHECKSUM_LENGTH)))
}

/**
 * The hash under which a presented credential would be stored, or `undefined` when it can't have been
 * issued as this kind: garbage is refused before any query.
 */
export function credentialHash(kind: CredentialKind, text: string): Buffer | undefined {
  return isCredential(kind, text) ? hashSecret(text) : undefined
}

/** SHA-256: enough for values of 128 random bits and more, which can't be guessed from it. */
export function hashSecret(secret: string | Buffer): Buffer {
  return hash('sha256', secret, 'buffer')
}

/** Compares two hashes in constant time. */
export function equalHashes(one: Buffer, other: Buffer): boolean {
  return one.length === other.length && timingSafeEqual(one, other)
}

/** Compares a presented secret with the right one in constant time, whatever their lengths. */
export function equalSecrets(presented: string, right: string): boolean {
  return timingSafeEqual(hashSecret(presented), hashSecret(right))
}

function checksum(body: string): string {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(crc32(body))
  return bytes.toString('base64url')
}
