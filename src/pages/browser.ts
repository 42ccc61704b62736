import { createHash, createHmac } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Config } from '../config.ts'
import type { Context } from '../context.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { findSession, type Session, type SessionOrigin } from '../store/session.ts'
import { credentialHash, equalSecrets, randomSecret } from '../tokens/secret.ts'
import { KNOWN_BROWSER_SECONDS } from '../users/sign-in.ts'

/** What a browser keeps for us: its session, a secret for its forms, and that someone signed in there before. */
type CookieKind = 'session' | 'form' | 'browser'

/**
 * Name of a cookie. On https it has the `__Host-` prefix, so that no other host and no plain http can set it.
 * The issuer is part of it: cookies are shared by all paths, and on loopback by all ports, of a host.
 */
function cookieName({ issuer }: Config, kind: CookieKind): string {
  const tag = createHash('sha256').update(issuer).digest('hex').slice(0, 8)
  return `${issuer.startsWith('https:') ? '__Host-' : ''}postern-${kind}-${tag}`
}

function setCookie(reply: FastifyReply, config: Config, kind: CookieKind, value: string, maxAge?: number): void {
  reply.setCookie(cookieName(config, kind), value, {
    path: '/',
    httpOnly: true,
    secure: config.issuer.startsWith('https:'),
    sameSite: 'lax', // the browser arrives at /authorize from the client's site
    ...(maxAge === undefined ? {} : { maxAge }),
  })
}

/** The session id that the browser sent, good or not. */
export function sentSessionId({ config }: Context, request: FastifyRequest): string | undefined {
  return request.cookies[cookieName(config, 'session')]
}

/** The known-browser credential that the browser sent, good or not. */
export function sentKnownBrowser({ config }: Context, request: FastifyRequest): string | undefined {
  return request.cookies[cookieName(config, 'browser')]
}

/** The living session of the browser. */
export async function readSession(context: Context, request: FastifyRequest): Promise<Session | undefined> {
  const idHash = credentialHash('session', sentSessionId(context, request) ?? '')
  return idHash === undefined ? undefined : findSession(context.db, idHash, context.config.passwordSignIn)
}

/** Gives the browser its session. */
export function giveSession({ config }: Context, reply: FastifyReply, sessionId: string): void {
  setCookie(reply, config, 'session', sessionId, config.sessionSeconds)
}

/** Lets the browser be recognised at later sign-ins. */
export function giveKnownBrowser({ config }: Context, reply: FastifyReply, knownBrowser: string): void {
  setCookie(reply, config, 'browser', knownBrowser, KNOWN_BROWSER_SECONDS)
}

/** Takes the session from the browser. */
export function takeSession({ config }: Context, reply: FastifyReply): void {
  setCookie(reply, config, 'session', '', 0)
}

/** Where a session begins that is opened for this request. */
export function originOf(request: FastifyRequest): SessionOrigin {
  return { userAgent: request.headers['user-agent'], address: request.ip }
}

/** The secret of this browser's forms, which only this browser has; `undefined` when it has seen no form. */
export function browserSecretOf({ config }: Context, request: FastifyRequest): string | undefined {
  const sent = request.cookies[cookieName(config, 'form')]
  return sent !== undefined && FORM_SECRET.test(sent) ? sent : undefined
}

/**
 * The token that a form must send back: only a page that this server showed to this browser, in this session,
 * has it. Bound to a secret cookie and to the session, so that neither a foreign site (CSRF), nor one that
 * wants to sign the browser in to another account (login CSRF), can make one. Nothing is stored.
 */
export function formToken(context: Context, request: FastifyRequest, reply: FastifyReply): string {
  const sent = browserSecretOf(context, request)
  const secret = sent ?? randomSecret().toString('base64url')
  if (secret !== sent) setCookie(reply, context.config, 'form', secret)
  return tokenOf(secret, sentSessionId(context, request))
}

/** Whether a posted form has the token that this browser was given in this session. */
export function isFormTokenRight(context: Context, request: FastifyRequest, presented: string | undefined): boolean {
  const secret = browserSecretOf(context, request)
  return secret !== undefined && equalSecrets(presented ?? '', tokenOf(secret, sentSessionId(context, request)))
}

/** Checks the token of a form that can't be shown again. @throws {OAuthError} with the reason `FORM_EXPIRED` */
export function checkFormToken(context: Context, request: FastifyRequest, presented: string | undefined): void {
  if (isFormTokenRight(context, request, presented)) return
  throw new OAuthError('access_denied', 'this form is no longer valid', FORM_EXPIRED, { status: 403 })
}

const FORM_EXPIRED = 'form_expired'
const FORM_SECRET = /^[A-Za-z0-9_-]{43}$/

function tokenOf(secret: string, sessionId: string | undefined): string {
  return createHmac('sha256', secret)
    .update(sessionId ?? '')
    .digest('base64url')
}
