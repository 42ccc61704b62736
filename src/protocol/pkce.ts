import { hash } from 'node:crypto'

const VERIFIER = /^[A-Za-z0-9._~-]{43,128}$/ // RFC 7636 §4.1
const CHALLENGE = /^[A-Za-z0-9_-]{43}$/ // the base64url of a SHA-256 (RFC 7636 §4.2)

/** Whether a text can be an S256 code challenge. */
export function isCodeChallenge(text: string): boolean {
  return CHALLENGE.test(text)
}

/** The S256 challenge of a verifier (RFC 7636 §4.6), or `undefined` when it is not a verifier. */
export function challengeOf(verifier: string): string | undefined {
  if (!VERIFIER.test(verifier)) return undefined
  return hash('sha256', verifier, 'base64url')
}
