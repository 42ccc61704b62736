import type { FastifyReply, FastifyRequest, RouteHandlerMethod } from 'fastify'
import { findAskedParameters } from '../clients/authorization-request.ts'
import { countKept } from '../clients/network-limit.ts'
import type { Context } from '../context.ts'
import { networkOf } from '../operations/network.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { type Parameters, readParameters } from '../protocol/parameters.ts'
import type { IdentityProviderRow } from '../store/database.ts'
import { openSession, signOut } from '../users/sign-in.ts'
import {
  beginUpstreamSignIn,
  demandOpenProvider,
  finishUpstreamLink,
  finishUpstreamSignIn,
  resumeUpstreamSignIn,
  type UpstreamResult,
} from '../users/upstream.ts'
import { redirectToAccount } from './account-page.ts'
import { withAuthorizationRequest } from './authorization.ts'
import { browserSecretOf, giveSession, isFormTokenRight, originOf, readSession, sentSessionId } from './browser.ts'
import { nextAddress, queryFor, readNextPage } from './next-page.ts'
import { redirectTo } from './page.ts'
import { showSignInForm } from './sign-in-form.ts'
import { TEXTS } from './texts.ts'

/** Sends the browser to an identity provider. The query says where to go on to afterwards. */
export function departToProvider(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const next = readNextPage(readParameters(request.query))
    const provider = await demandProvider(context, request)
    const form = readParameters(request.body)
    const browserSecret = browserSecretOf(context, request)
    if (browserSecret === undefined || !isFormTokenRight(context, request, form.get('form_token'))) {
      const problem = TEXTS.formExpired
      return showSignInForm(context, request, reply.code(403), { ...next, problem })
    }
    const { page, parameters } = next
    const asked = page === 'authorize' ? (await findAskedParameters(context, parameters)).parameters : parameters
    await countKept(context, networkOf(request.ip), '/login')
    return orSignInForm(context, request, reply, { ...next, provider }, async () => {
      const address = await beginUpstreamSignIn(context, provider, {
        browserSecret,
        linkUserId: null,
        continueQuery: queryFor(next.page, next.parameters),
        prompt: promptFor(asked),
      })
      return redirectTo(reply, address.href)
    })
  }
}

/** Where the browser comes back to from an identity provider (RFC 6749 §4.1.2). */
export function returnFromProvider(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const provider = await demandProvider(context, request)
    const session = await readSession(context, request)
    const returned = {
      browserSecret: browserSecretOf(context, request) ?? '',
      query: request.url.split('?').slice(1).join('?'),
      userId: session?.userId,
    }
    const signIn = await resumeUpstreamSignIn(context, provider, returned)
    const next = readNextPage(new Map(new URLSearchParams(signIn.continueQuery)))
    return orSignInForm(context, request, reply, { ...next, provider }, async () => {
      if (signIn.linkUserId !== null) {
        const result = await finishUpstreamLink(context, provider, signIn.linkUserId, returned)
        return redirectToAccount(context, reply, result)
      }
      const result = await finishUpstreamSignIn(context, provider, returned)
      return goOn(context, request, reply, { ...next, provider, result })
    })
  }
}

/** Goes on as the sign-in ended: to where the person wanted to go, back to the client, or to the sign-in page. */
async function goOn(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  { page, parameters, provider, result }: Next & { result: UpstreamResult },
): Promise<FastifyReply> {
  const sessionId =
    result.outcome === 'proven'
      ? await openSession(context, result.user, { ...originOf(request), providerId: provider.id })
      : undefined
  const reason = result.outcome === 'refused' ? result.reason : 'user_disabled'
  const outcome = sessionId !== undefined ? 'signed-in' : result.outcome === 'denied' ? 'denied' : reason
  request.log.info({ event: 'sign_in', provider: provider.id, outcome, network: networkOf(request.ip) }, 'sign-in')
  if (sessionId !== undefined) {
    await signOut(context, sentSessionId(context, request)) // the session changes with who is signed in
    giveSession(context, reply, sessionId)
    return redirectTo(reply, nextAddress(context.config.basePath, page, parameters))
  }
  if (result.outcome === 'denied' && page === 'authorize') {
    return withAuthorizationRequest(context, reply, Object.fromEntries(parameters), async () => {
      throw new OAuthError('access_denied', 'the person did not sign in', 'upstream_denied')
    })
  }
  const problem = result.outcome === 'denied' ? TEXTS.signIn.deniedThere(provider.name) : TEXTS.signIn.refused[reason]
  return showSignInForm(context, request, reply.code(403), { page, parameters, problem })
}

/** Where the person wanted to go, by way of which provider. */
type Next = ReturnType<typeof readNextPage> & { provider: IdentityProviderRow }

/** A provider that can't be used shows the sign-in page again, which says so: there may be other ways to sign in. */
async function orSignInForm(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  { provider, ...next }: Next,
  work: () => Promise<FastifyReply>,
): Promise<FastifyReply> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof OAuthError) || !error.reason.startsWith('provider_')) throw error
    const problem =
      error.reason === 'provider_unavailable'
        ? TEXTS.signIn.providerAway(provider.name)
        : TEXTS.signIn.providerBroken(provider.name)
    return showSignInForm(context, request, reply.code(503), { ...next, problem })
  }
}

/** @throws {OAuthError} when there is no such provider */
async function demandProvider(context: Context, request: FastifyRequest): Promise<IdentityProviderRow> {
  const { provider: id = '' } = request.params as { provider?: string }
  return demandOpenProvider(context, id)
}

/** What the client demands of the sign-in itself; consent is asked here (OpenID Connect Core §3.1.2.1). */
function promptFor(parameters: Parameters): string | undefined {
  const words = (parameters.get('prompt') ?? '').split(' ').filter((word) => ['login', 'select_account'].includes(word))
  return words.length === 0 ? undefined : words.join(' ')
}
