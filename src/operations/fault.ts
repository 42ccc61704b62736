import type { Logger } from 'pino'
import { OAuthError } from '../protocol/oauth-error.ts'
import { isDatabaseUnavailable } from '../store/database.ts'

/** How often an outage is logged whole: it makes every request fail, and all in the same way. */
const OUTAGE_LOGGED_SECONDS = 10

type RequestLog = Pick<Logger, 'info' | 'warn' | 'error'>

/**
 * Turns whatever was thrown into the error that the sender may see, and logs it: a refusal with its stable
 * reason, a fault of ours whole.
 *
 * @param log of the request, so that the line carries its id
 */
export function asOAuthError(error: unknown, log: RequestLog, route: string | undefined): OAuthError {
  if (error instanceof OAuthError) {
    log.info({ event: 'refused', error: error.code, reason: error.reason, route }, 'request refused')
    return error
  }
  if (isDatabaseUnavailable(error)) {
    logOutage(log, error, route)
    const options = { retryAfterSeconds: 2 }
    return new OAuthError(
      'temporarily_unavailable',
      'the server is not available right now',
      'database_unavailable',
      options,
    )
  }
  const { statusCode, code } = error as { statusCode?: unknown; code?: unknown }
  if (typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500) {
    log.info({ event: 'refused', error: 'invalid_request', reason: code, route }, 'request refused')
    const message = TRANSPORT_ERRORS[statusCode] ?? 'the request is malformed'
    return new OAuthError('invalid_request', message, String(code), { status: statusCode })
  }
  log.error({ event: 'fault', err: error, route }, 'fault')
  return new OAuthError('server_error', 'the server failed, which is not the fault of the request')
}

let isOutageLogged = false
let loggedInBrief = 0

/** Logs that a request failed for want of the database: whole now and then, and in brief for the others. */
function logOutage(log: RequestLog, error: unknown, route: string | undefined): void {
  const facts = { event: 'database_unavailable', reason: 'database_unavailable', route }
  if (isOutageLogged) {
    loggedInBrief += 1
    log.warn(facts, 'database unavailable')
    return
  }
  log.error({ ...facts, err: error, logged_in_brief: loggedInBrief }, 'database unavailable')
  loggedInBrief = 0
  isOutageLogged = true
  setTimeout(() => {
    isOutageLogged = false
  }, OUTAGE_LOGGED_SECONDS * 1000).unref()
}

const TRANSPORT_ERRORS: Record<number, string> = {
  413: 'the body is too large',
  415: 'the body has a media type that this endpoint does not accept',
}
