/** The grant's `grant_type` (RFC 8628 §3.4). */
export const DEVICE_CODE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code'

/** How long a device waits for the person (RFC 8628 §3.2). */
export const DEVICE_CODE_SECONDS = 600

/** The least time between two polls; each one that comes too early adds as much (RFC 8628 §3.5). */
export const POLL_INTERVAL_SECONDS = 5

/** Consonants alone: no word, nothing to confuse, easy on every keyboard (RFC 8628 §6.1). Twenty of them. */
const ALPHABET = 'BCDFGHJKLMNPQRSTVWXZ'
const USER_CODE_LENGTH = 8 // 34 bits, against which guesses are bounded

/**
 * A user code from random bytes.
 *
 * @param random at least 32 bytes
 * @returns `undefined` in the rare case that too few of them can be used without favouring a letter
 */
export function userCodeFrom(random: Buffer): string | undefined {
  const letters = [...random].filter((byte) => byte < 240).map((byte) => ALPHABET[byte % ALPHABET.length])
  return letters.length < USER_CODE_LENGTH ? undefined : letters.slice(0, USER_CODE_LENGTH).join('')
}

/** As people read it: two groups. */
export function displayUserCode(userCode: string): string {
  return `${userCode.slice(0, 4)}-${userCode.slice(4)}`
}

/** What a person typed, with case and separators put right; `undefined` when it can't be a user code. */
export function readUserCode(typed: string): string | undefined {
  const letters = typed.toUpperCase().replace(/[^A-Z]/g, '')
  const possible = letters.length === USER_CODE_LENGTH && [...letters].every((letter) => ALPHABET.includes(letter))
  return possible ? letters : undefined
}

/** What the row of a device code says, as far as the judgement of a poll needs it. */
export interface JudgedDeviceCode {
  clientId: string
  status: 'pending' | 'approved' | 'denied' | 'redeemed'
  expired: boolean
  /** it was polled again before its interval was over */
  early: boolean
}

export type DeviceCodeVerdict =
  | 'unknown'
  | 'wrong-client'
  | 'redeemed'
  | 'expired'
  | 'denied'
  | 'slow-down'
  | 'pending'
  | 'refused'

/**
 * Says why a poll got no tokens (RFC 8628 §3.5).
 *
 * @returns `refused` when the person approved, so that its user, client or resource is disabled or removed, or the
 *   poll asked for another resource
 */
export function judgeDeviceCode(code: JudgedDeviceCode | undefined, clientId: string): DeviceCodeVerdict {
  if (code === undefined) return 'unknown'
  if (code.clientId !== clientId) return 'wrong-client'
  if (code.status === 'redeemed') return 'redeemed'
  if (code.status === 'denied') return 'denied'
  if (code.expired) return 'expired'
  if (code.status === 'approved') return 'refused'
  return code.early ? 'slow-down' : 'pending'
}
