import type { FastifyReply } from 'fastify'
import {
  type GrantableRequest,
  judgeAuthorizationRequest,
  NO_RESOURCE,
  proveClient,
} from '../clients/authorization-request.ts'
import type { Context } from '../context.ts'
import { type RedirectTarget, responseUri } from '../protocol/authorization-request.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { sortParameters } from '../protocol/parameters.ts'
import { FORM_EXPIRED } from './browser.ts'
import { redirectTo } from './page.ts'

/** Parameters on which depends where the response goes: a problem with one of them is never sent anywhere. */
const BEFORE_PROOF = ['client_id', 'redirect_uri', 'state']

/** Problems that the client can do nothing about: the person, or the operator, can. */
const FOR_THE_PERSON: ReadonlySet<string> = new Set([NO_RESOURCE, FORM_EXPIRED])

/**
 * Judges an authorization request (RFC 6749 §4.1.1): until its redirect URI is proven, errors are shown; from
 * then on, they go back to the client (RFC 6749 §4.1.2.1).
 *
 * @param query the parsed parameters
 * @param grant what to do with a request that can be granted
 */
export async function withAuthorizationRequest(
  context: Context,
  reply: FastifyReply,
  query: unknown,
  grant: (request: GrantableRequest) => Promise<FastifyReply>,
): Promise<FastifyReply> {
  const { parameters, problems } = sortParameters(query)
  for (const name of BEFORE_PROOF) {
    const problem = problems.get(name)
    if (problem !== undefined) throw problem
  }
  const { client, target } = await proveClient(context, parameters)
  try {
    for (const problem of problems.values()) throw problem
    return await grant(await judgeAuthorizationRequest(context, client, target, parameters))
  } catch (error) {
    if (!(error instanceof OAuthError) || FOR_THE_PERSON.has(error.reason)) throw error
    const facts = { error: error.code, reason: error.reason, client_id: client.id }
    context.log.info({ event: 'authorization_refused', ...facts }, 'authorization refused')
    return redirectError(context, reply, target, error)
  }
}

/** Sends the browser back to the client with a code (RFC 6749 §4.1.2). */
export function redirectCode(
  { config }: Context,
  reply: FastifyReply,
  target: RedirectTarget,
  code: string,
): FastifyReply {
  return redirectTo(reply, responseUri(target, { code }, issOf(config)))
}

/** Sends the browser back to the client with an error (RFC 6749 §4.1.2.1). */
export function redirectError(
  { config }: Context,
  reply: FastifyReply,
  target: RedirectTarget,
  error: OAuthError,
): FastifyReply {
  const errorUri = config.errorUri === undefined ? {} : { error_uri: `${config.errorUri}#${error.code}` }
  return redirectTo(reply, responseUri(target, { ...error.toJSON(), ...errorUri }, issOf(config)))
}

function issOf({ issuer, issParameter }: Context['config']): string | undefined {
  return issParameter ? issuer : undefined // RFC 9207 §2
}
