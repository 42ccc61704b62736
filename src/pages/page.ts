import type { FastifyReply, FastifyRequest } from 'fastify'
import { asOAuthError } from '../operations/fault.ts'
import type { OAuthError } from '../protocol/oauth-error.ts'
import { type ErrorWords, type Notice, TEXTS } from './texts.ts'

/** What each template in views/ is given. */
interface Models {
  'sign-in': {
    action: string
    formToken: string
    username: string
    withPassword: boolean
    providers: { name: string; action: string }[]
    problem?: string
    clientName?: string
  }
  consent: {
    action: string
    switchAction: string
    formToken: string
    shown: string
    client: { name: string; host?: string; uri?: string }
    redirect: { kind: 'web' | 'loopback' | 'application' | 'device'; name: string }
    resource: { name: string; uri: string }
    newScopes: { name: string; description: string }[]
    grantedScopes: { name: string; description: string }[]
    /** where the resource server may act for the person */
    upstreams: { providerName: string; offline: boolean }[]
    username: string
    impersonationWarning: boolean
    problem?: string
  }
  device: { action: string; formToken: string; userCode: string; problem?: string }
  'device-done': { approved: boolean; clientName: string }
  setup: { action: string; formToken: string; username: string; problem?: string }
  'next-steps': {
    username: string
    issuer: string
    accountHref: string
  }
  account: {
    username: string
    isAdministrator: boolean
    formToken: string
    base: string
    signOutAction: string
    grants: ShownGrant[]
    sessions: ShownSession[]
    hasPassword: boolean
    linked: { providerId: string; providerName: string; displayName: string; linkedAt: string }[]
    linkable: { id: string; name: string }[]
    notice?: Notice
  }
  confirm: {
    title: string
    explanation: string
    button: string
    action: string
    formToken: string
    fields: { name: string; value: string }[]
    backHref: string
  }
  'signed-out': { signInHref: string }
  error: ErrorWords & { code: string; reference: string }
}

/** A connected application on the account page. */
export interface ShownGrant {
  id: string
  name: string
  host: string
  resource: string
  resourceUri: string
  scope: string[]
  upstream: string[]
  connectedAt: string
  connectedFrom: string | null
  lastUsedAt: string
}

/** A session on the account page. */
export interface ShownSession {
  id: string
  browser: string
  address: string | null
  providerName: string | null
  createdAt: string
  isCurrent: boolean
}

/** Answers with a page. */
export function sendPage<Name extends keyof Models>(
  reply: FastifyReply,
  name: Name,
  model: Models[Name],
): FastifyReply {
  const { looks } = reply.server
  return reply.headers(looks.headers).view(name, { ...model, looks, texts: TEXTS })
}

/** Sends the browser on, with a GET whatever the request was (RFC 9110 §15.4.4). Never to an unproven address. */
export function redirectTo(reply: FastifyReply, address: string): FastifyReply {
  return reply.header('cache-control', 'no-store').header('referrer-policy', 'same-origin').redirect(address, 303)
}

/** Answers a person with a page that says what went wrong, and an operator what to look for. */
export function sendErrorPage(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const shown = asOAuthError(error, request.log, request.routeOptions.url)
  if (shown.retryAfterSeconds !== undefined) reply.header('retry-after', shown.retryAfterSeconds)
  reply.code(shown.status === 401 ? 400 : shown.status) // a browser has no credentials for a 401
  return sendPage(reply, 'error', { ...wordsFor(shown), code: shown.code, reference: request.id })
}

function wordsFor(error: OAuthError): ErrorWords {
  const { words, otherwise } = TEXTS.error
  return words[error.reason] ?? words[error.code] ?? { title: otherwise, explanation: `${capitalised(error.message)}.` }
}

function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
