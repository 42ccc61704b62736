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
const MINUTE_BYTES = 3 // since 1970, and anew every 32 years: next in October 2033
const CHECKSUM_LENGTH = 6 // the base64url of four bytes

/** Random bytes are read by the page: reading a few costs as much. */
const RANDOM_PAGE_BYTES = 4096
let randomPage = Buffer.alloc(0)

/**
 * Random bytes, none of which is handed out twice, on a page with others: `buffer` shows those, too. This file is the one
 * place where randomness is read.
 */
export function randomSecret(bytes: number = CREDENTIAL_BYTES): Buffer {
  if (bytes > randomPage.length) randomPage = randomBytes(Math.max(bytes, RANDOM_PAGE_BYTES))
  const secret = randomPage.subarray(0, bytes)
  randomPage = randomPage.subarray(bytes)
  return secret
}

/** A new secret of 256 random bits, behind the minute: for rows that come by the million (`orderedHash`). */
export function orderedSecret(): Buffer {
  const minute = Buffer.allocUnsafe(MINUTE_BYTES)
  minute.writeUIntBE(Math.floor(Date.now() / 60_000) % 2 ** (8 * MINUTE_BYTES), 0, MINUTE_BYTES)
  return Buffer.concat([minute, randomSecret()])
}

/** The minute before an ordered secret; nothing where there is none, as before secrets were ordered. */
export function minuteOf(secret: Buffer): Buffer {
  return secret.subarray(0, secret.length === MINUTE_BYTES + CREDENTIAL_BYTES ? MINUTE_BYTES : 0)
}

/**
 * The hash under which an ordered secret is stored: its minute, then SHA-256 from the fourth byte on, so that an index
 * takes the rows of one minute side by side (docs/decisions/0019). A secret of any other length has no minute, and gets
 * SHA-256 whole: with a longer "minute", whoever read a stored hash could present it as a token.
 *
 * @param text what is hashed, if not the secret itself
 */
export function orderedHash(secret: Buffer, text: string | Buffer = secret): Buffer {
  const hashed = hashSecret(text)
  minuteOf(secret).copy(hashed)
  return hashed
}

/** A new identifier that needn't be secret. */
export function randomId(): string {
  return randomUUID()
}

const PROCESS_MARK = randomBytes(2).toString('hex')

/**
 * A new identifier that follows those before it, for rows that come by the million: an index then takes new ones side by
 * side, not each on a page of its own. A UUID of version 8 (RFC 9562 §5.8), not 7, which would tell in every log when a
 * grant began: a mark of this process, how long it has run in hundredths of a second (anew after 497 days), and 74 random
 * bits.
 */
export function orderedId(): string {
  const hundredths = Math.floor(performance.now() / 10) % 2 ** 32
  const start = PROCESS_MARK + hundredths.toString(16).padStart(8, '0')
  return `${start.slice(0, 8)}-${start.slice(8)}-8${randomUUID().slice(15)}`
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

/**
 * SHA-256: enough for values of 128 random bits and more, which can't be guessed from it.
 *
 * By way of a string: a buffer from `hash` has memory of its own, which costs more than the hash, and again when it is
 * collected; those of `Buffer.from` share theirs.
 */
export function hashSecret(secret: string | Buffer): Buffer {
  return Buffer.from(hash('sha256', secret, 'binary'), 'binary')
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
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32BE(crc32(body))
  return bytes.toString('base64url')
}
