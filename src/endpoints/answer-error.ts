import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Context } from '../context.ts'
import { asOAuthError } from '../operations/fault.ts'
import type { OAuthError } from '../protocol/oauth-error.ts'

/** Answers a machine with OAuth JSON, whatever went wrong (RFC 6749 §5.2). */
export function answerError(
  { config }: Context,
  error: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
): FastifyReply {
  const shown = asOAuthError(error, request.log, request.routeOptions.url)
  reply.code(shown.status).header('cache-control', 'no-store').header('x-request-id', request.id)
  if (shown.retryAfterSeconds !== undefined) reply.header('retry-after', shown.retryAfterSeconds)
  if (shown.dpopNonce !== undefined) reply.header('dpop-nonce', shown.dpopNonce) // RFC 9449 §8
  const challenge = challengeOf(shown)
  if (challenge !== undefined) reply.header('www-authenticate', challenge)
  return reply.type('application/json').send({
    ...shown.toJSON(),
    // tells a client whose registration is gone where to get a new one
    ...(isGone(shown) && config.registration !== 'off' ? { registration_endpoint: `${config.issuer}/register` } : {}),
    ...(config.errorUri === undefined ? {} : { error_uri: `${config.errorUri}#${shown.code}` }),
  })
}

/** A client that is disabled gets the same answer as one that isn't there: which identifiers exist can't be tried. */
function isGone({ code, reason }: OAuthError): boolean {
  return code === 'invalid_client' && (reason === 'client_unknown' || reason === 'client_disabled')
}

/** 401 names a scheme (RFC 9110 §15.5.2): Basic for clients (RFC 6749 §5.2), Bearer for registration (RFC 6750 §3). */
function challengeOf(error: OAuthError): string | undefined {
  if (error.code === 'invalid_client') return 'Basic realm="postern", charset="UTF-8"'
  if (error.code === 'invalid_token') return 'Bearer realm="postern", error="invalid_token"'
  return undefined
}
