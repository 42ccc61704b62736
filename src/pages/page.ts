import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { asOAuthError } from '../operations/fault.ts'
import type { OAuthError } from '../protocol/oauth-error.ts'
import { FORM_EXPIRED } from './browser.ts'

/** The folder of the templates, beside the compiled code and in the container alike. */
export const VIEWS = join(import.meta.dirname, '..', '..', '..', 'views')

const STYLE = readFileSync(join(VIEWS, 'style.css'), 'utf8')

/**
 * Headers of every page. No `form-action`: Chromium applies it to the redirect after a form, and so to the way
 * back to the client. No `Cross-Origin-Opener-Policy`: clients open these pages in a popup and wait for it.
 */
const PAGE_HEADERS = {
  'content-security-policy': [
    "default-src 'none'",
    `style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'`,
    'img-src data:',
    "base-uri 'none'",
    "frame-ancestors 'none'",
  ].join('; '),
  'x-frame-options': 'DENY',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'same-origin',
  'cache-control': 'no-store',
}

/** What each template in views/ is given. */
interface Models {
  'sign-in': { action: string; formToken: string; username: string; problem?: string; clientName?: string }
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
    commands: { title: string; explanation: string; command: string }[]
    accountHref: string
  }
  account: { username: string; isAdministrator: boolean; formToken: string; signOutAction: string }
  'signed-out': { signInHref: string }
  error: { title: string; explanation: string; hint?: string; code: string; reference: string }
}

/** Answers with a page. */
export function sendPage<Name extends keyof Models>(
  reply: FastifyReply,
  name: Name,
  model: Models[Name],
): FastifyReply {
  return reply.headers(PAGE_HEADERS).view(name, { ...model, style: STYLE })
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

function wordsFor(error: OAuthError): { title: string; explanation: string; hint?: string } {
  const words = WORDS[error.reason] ?? WORDS[error.code]
  return words ?? { title: 'This request can’t be answered', explanation: `${capitalised(error.message)}.` }
}

function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

/** Words for people, by the reason of an error or else by its code. */
const WORDS: Record<string, { title: string; explanation: string; hint?: string }> = {
  client_unknown: {
    title: 'This application is not registered here',
    explanation:
      'Its registration may have been removed because it was not used. Remove the connection in the application, and connect it again.',
  },
  client_disabled: {
    title: 'This application is not allowed here',
    explanation: 'An administrator of this service has disabled it.',
  },
  redirect_uri_mismatch: {
    title: 'This application asks to be answered at an unknown address',
    explanation: 'It is not one of the addresses that it registered, so nothing was sent there.',
  },
  client_id_url_malformed: {
    title: 'This application can’t be identified',
    explanation: 'It names an address of its description that is not a usable one.',
  },
  client_host_refused: {
    title: 'This application is not allowed here',
    explanation: 'The service does not accept applications from the website that this one belongs to.',
  },
  metadata_document_unusable: {
    title: 'This application can’t be identified',
    explanation:
      'Its description could not be read from the website that it belongs to, or is not a usable one. Its makers have to correct that.',
  },
  metadata_document_unavailable: {
    title: 'This application can’t be identified right now',
    explanation: 'The website that it belongs to does not answer as it should. Please try again soon.',
  },
  pushed_request_unknown: {
    title: 'This request has expired',
    explanation: 'It was open for too long. Go back to the application and start again.',
  },
  no_resource_added: {
    title: 'Nothing can be connected yet',
    explanation: 'This service does not know any resource server, such as an MCP server, that it could give access to.',
    hint: 'npx postern resource add https://mcp.example.com/mcp --name "Example" --scope read="Read your data"',
  },
  [FORM_EXPIRED]: {
    title: 'This page is no longer valid',
    explanation:
      'It was open for long, or you have signed in or out since. Go back to the application and start again.',
  },
  setup_link_not_valid: {
    title: 'This link is no longer good',
    explanation:
      'It works once, for a day, and only as long as nobody has an account. Starting the server again prints a new one if there is still no account.',
    hint: 'npx postern user add NAME --admin',
  },
  not_found: { title: 'There is no such page', explanation: 'The address may be mistyped.' },
  server_error: { title: 'Something went wrong here', explanation: 'It is not your fault. Please try again later.' },
  temporarily_unavailable: {
    title: 'Not available right now',
    explanation: 'The service can’t answer for a moment. Please try again soon.',
  },
}
