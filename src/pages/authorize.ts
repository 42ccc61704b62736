import type { RouteHandlerMethod } from 'fastify'
import type { GrantableRequest } from '../clients/authorization-request.ts'
import type { Context } from '../context.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { sortParameters } from '../protocol/parameters.ts'
import type { Session } from '../store/session.ts'
import { findConsentQuestion, issueCode } from '../users/consent.ts'
import { redirectCode, withAuthorizationRequest } from './authorization.ts'
import { readSession } from './browser.ts'
import { queryFor } from './next-page.ts'
import { redirectTo } from './page.ts'

/** Authorization endpoint (RFC 6749 §3.1): on to the sign-in, to consent, or back to the client with a code. */
export function authorize(context: Context): RouteHandlerMethod {
  const { basePath } = context.config
  return async (request, reply) =>
    withAuthorizationRequest(context, reply, request.query, async (asked) => {
      const { parameters } = sortParameters(request.query)
      const session = await readSession(context, request)
      if (session === undefined || demandsSignIn(asked, session)) {
        if (asked.prompt.has('none')) throw new OAuthError('login_required', 'nobody is signed in')
        return redirectTo(reply, `${basePath}/login?${queryFor('authorize', parameters)}`)
      }
      const question = await findConsentQuestion(context, asked, session.userId)
      if (question !== undefined) {
        if (asked.prompt.has('none')) throw new OAuthError('consent_required', 'the person has not consented')
        return redirectTo(reply, `${basePath}/consent?${new URLSearchParams([...parameters])}`)
      }
      return redirectCode(context, reply, asked.target, await issueCode(context, asked, session.userId, request.ip))
    })
}

/**
 * Whether the person has to sign in although they are signed in (OpenID Connect Core §3.1.2.1). The sign-in takes
 * the demand out of the URL; a pushed request can't be changed, so there a sign-in since then meets it.
 */
function demandsSignIn({ prompt, pushedAt }: GrantableRequest, session: Session): boolean {
  if (!prompt.has('login') && !prompt.has('select_account')) return false
  return pushedAt === undefined || session.createdAt <= pushedAt
}

/** The same request as a form (RFC 6749 §3.1): it goes on as a query, which survives the way through sign-in. */
export function authorizePosted(context: Context): RouteHandlerMethod {
  const { basePath } = context.config
  return async (request, reply) => {
    const pairs = Object.entries((request.body ?? {}) as Record<string, string | string[]>)
    // repeated parameters stay repeated, and are refused there
    const query = new URLSearchParams(
      pairs.flatMap(([name, values]) => [values].flat().map((value): [string, string] => [name, value])),
    )
    return redirectTo(reply, `${basePath}/authorize?${query}`)
  }
}
