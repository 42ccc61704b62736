import type { FastifyReply } from 'fastify'
import { type GrantableRequest, judgeAuthorizationRequest, proveClient } from '../clients/authorization-request.ts'
import { mustPush } from '../clients/client-policy.ts'
import { NO_RESOURCE } from '../clients/requested-resource.ts'
import type { Context } from '../context.ts'
import { networkOf } from '../operations/network.ts'
import { type RedirectTarget, responseUri } from '../protocol/authorization-request.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { sortParameters } from '../protocol/parameters.ts'
import { redirectTo } from './page.ts'

/** Parameters on which depends where the response goes: a problem with one of them is never sent anywhere. */
const BEFORE_PROOF = ['client_id', 'redirect_uri', 'state']

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
  const proven = await proveClient(context, parameters, networkOf(reply.request.ip, 48))
  const { client, target } = proven
  try {
    for (const problem of problems.values()) throw problem
    if (mustPush(client) && proven.pushedAt === undefined) {
      throw new OAuthError('invalid_request', 'this client has to push its requests', 'request_not_pushed') // RFC 9126 §6
    }
    return await grant(await judgeAuthorizationRequest(context, proven))
  } catch (error) {
    // no resource server: the client can do nothing about it, the operator can
    if (!(error instanceof OAuthError) || error.reason === NO_RESOURCE) throw error
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
