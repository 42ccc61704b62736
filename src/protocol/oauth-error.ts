/**
 * Error codes that Postern answers with, and the HTTP status of each at a JSON endpoint.
 *
 * @see RFC 6749 §4.1.2.1 and §5.2, RFC 7591 §3.2.2, RFC 8707 §2, RFC 9449 §5 and §8, OpenID Connect Core §3.1.2.6 (`…_required`)
 */
export const ERROR_STATUS = {
  invalid_request: 400,
  invalid_client: 401,
  invalid_grant: 400,
  unauthorized_client: 400,
  unsupported_grant_type: 400,
  unsupported_response_type: 400,
  invalid_scope: 400,
  invalid_target: 400,
  invalid_token: 401,
  invalid_redirect_uri: 400,
  invalid_client_metadata: 400,
  invalid_dpop_proof: 400,
  use_dpop_nonce: 400,
  access_denied: 400,
  authorization_pending: 400,
  slow_down: 400,
  expired_token: 400,
  login_required: 400,
  consent_required: 400,
  not_found: 404,
  method_not_allowed: 405,
  server_error: 500,
  temporarily_unavailable: 503,
} as const

export type OAuthErrorCode = keyof typeof ERROR_STATUS

/** What may go with an error beside its words. */
interface OAuthErrorOptions {
  /** HTTP status, where the transport's own is more exact than the code's: 403, 405, 413, 415, 429 */
  status?: number
  /** seconds after which the same request may succeed (the `Retry-After` header) */
  retryAfterSeconds?: number
  /** what the next DPoP proof has to hold (the `DPoP-Nonce` header) */
  dpopNonce?: string
}

/**
 * The one error that a client gets to see. Anything else that is thrown is a bug of ours.
 *
 * `code` is the registered word, `message` fixed text for the client without stored values, and
 * `reason` a stable word for the log, by which an operator can tell why a connector failed.
 */
export class OAuthError extends Error {
  override readonly name = 'OAuthError'
  readonly code: OAuthErrorCode
  readonly reason: string
  readonly status: number
  readonly retryAfterSeconds: number | undefined
  readonly dpopNonce: string | undefined

  constructor(code: OAuthErrorCode, message: string, reason: string = message, options: OAuthErrorOptions = {}) {
    super(message)
    this.code = code
    this.reason = reason
    this.status = options.status ?? ERROR_STATUS[code]
    this.retryAfterSeconds = options.retryAfterSeconds
    this.dpopNonce = options.dpopNonce
  }

  /** Error response body (RFC 6749 §5.2). Send this, not the error: Fastify replaces a sent Error. */
  toJSON(): { error: OAuthErrorCode; error_description: string } {
    return { error: this.code, error_description: this.message }
  }
}
