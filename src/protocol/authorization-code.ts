/** What the row of an authorization code says, as far as the judgement needs it. */
export interface JudgedCode {
  clientId: string
  /** as the authorization request named it, or the only registered one */
  redirectUri: string
  codeChallenge: string
  /** thumbprint of the key that must redeem it (RFC 9449 §10); `null`: any, or none */
  dpopJkt: string | null
  expired: boolean
  /** seconds since the first redemption; `undefined` when there was none */
  redeemedSecondsAgo: number | undefined
}

/** What a token request says of a code. */
export interface PresentedCode {
  clientId: string
  redirectUri: string | undefined
  /** S256 of the presented `code_verifier` */
  codeChallenge: string
  /** thumbprint of the key whose possession was proven */
  dpopJkt: string | undefined
}

export type AuthorizationCodeVerdict =
  | 'unknown'
  | 'wrong-client'
  | 'wrong-redirect-uri'
  | 'wrong-verifier'
  | 'wrong-key'
  | 'redeemed-just-now'
  | 'replayed'
  | 'expired'
  | 'refused'

/** A second redemption within this time is a double click or a retry, and ends nothing. */
export const REDEMPTION_RETRY_SECONDS = 10

/**
 * Says why a code was not redeemed.
 *
 * Client, redirect_uri, verifier and key are judged first, also for a used code, so that a wrong guess burns
 * nothing: only a party that proves them all can end the family that the code started.
 *
 * @returns `replayed` when the family that the code started must end; `refused` when the code itself is
 *   good, so that its user, client or resource has been disabled or removed
 * @see RFC 6749 §4.1.2, RFC 9700 §4.5.3
 */
export function judgeAuthorizationCode(
  code: JudgedCode | undefined,
  presented: PresentedCode,
): AuthorizationCodeVerdict {
  if (code === undefined) return 'unknown'
  if (code.clientId !== presented.clientId) return 'wrong-client'
  if (presented.redirectUri !== undefined && presented.redirectUri !== code.redirectUri) return 'wrong-redirect-uri'
  if (code.codeChallenge !== presented.codeChallenge) return 'wrong-verifier'
  if (code.dpopJkt !== null && code.dpopJkt !== presented.dpopJkt) return 'wrong-key'
  if (code.redeemedSecondsAgo !== undefined) {
    return code.redeemedSecondsAgo <= REDEMPTION_RETRY_SECONDS ? 'redeemed-just-now' : 'replayed'
  }
  return code.expired ? 'expired' : 'refused'
}
