import type { FastifyReply, FastifyRequest, RouteHandlerMethod } from 'fastify'
import { countKept } from '../clients/network-limit.ts'
import type { Context } from '../context.ts'
import { networkOf } from '../operations/network.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { type Parameters, readParameters } from '../protocol/parameters.ts'
import { listGrants } from '../store/grant.ts'
import { removeSessionsOfUser, type Session } from '../store/session.ts'
import { revokeTokenFamiliesOfUser } from '../store/token-family.ts'
import { listUpstreamAccounts, unlinkUpstreamAccount } from '../store/upstream-account.ts'
import { hashSecret, isId } from '../tokens/secret.ts'
import { type ChangePasswordResult, changePassword } from '../users/change-password.ts'
import { demandPasswordSignIn, openSession } from '../users/sign-in.ts'
import { beginUpstreamSignIn, demandOpenProvider } from '../users/upstream.ts'
import { redirectToAccount, showAccount, toSignIn } from './account-page.ts'
import {
  browserSecretOf,
  checkFormToken,
  formToken,
  giveSession,
  originOf,
  readSession,
  sentSessionId,
} from './browser.ts'
import { queryFor } from './next-page.ts'
import { redirectTo, sendPage } from './page.ts'
import { showSignInForm } from './sign-in-form.ts'
import { type Notice, TEXTS } from './texts.ts'

/** How long a sign-in is enough to add another way to sign in. */
const RECENT_SECONDS = 600

/** A form of the account page, from the person who is signed in. */
interface AccountForm {
  context: Context
  request: FastifyRequest
  reply: FastifyReply
  session: Session
  form: Parameters
}

/** The account page: connected applications, sessions, the password, linked accounts. */
export function account(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const session = await readSession(context, request)
    if (session === undefined) return toSignIn(context, reply)
    return showAccount(context, request, reply, session, noticeOf(request))
  }
}

/** What was just done, as the address tells. */
function noticeOf(request: FastifyRequest): Notice | undefined {
  const { done } = request.query as { done?: unknown }
  const { notices } = TEXTS.account
  return typeof done === 'string' && Object.hasOwn(notices, done) ? notices[done as keyof typeof notices] : undefined
}

/** The bare address of the server, which people try first. */
export function toAccount({ config }: Context): RouteHandlerMethod {
  return async (_request, reply) => redirectTo(reply, `${config.basePath}/account`)
}

/** Ends the connection of one application, or of all (`grant` is `all`), once the person has confirmed it. */
export function endGrant(context: Context): RouteHandlerMethod {
  return withForm(context, async (asked) => {
    const { reply, session, form } = asked
    const id = form.get('grant') === 'all' ? undefined : demandId(form.get('grant'))
    if (!isConfirmed(form)) {
      const grants = await listGrants(context.db, { userId: session.userId })
      const name = grants.find((grant) => grant.id === id)?.clientName ?? TEXTS.confirm.namelessGrant
      const question = id === undefined ? TEXTS.confirm.disconnectAll : TEXTS.confirm.disconnect(name)
      return confirm(asked, '/grants/end', question)
    }
    const ended = await revokeTokenFamiliesOfUser(context.db, session.userId, id)
    context.log.info({ event: 'grant_revoked_by_person', user_id: session.userId, family_ids: ended }, 'grant revoked')
    return redirectToAccount(context, reply, id === undefined ? 'grants' : 'grant')
  })
}

/** Ends one session, or all others (`session` is `others`). */
export function endSession(context: Context): RouteHandlerMethod {
  return withForm(context, async ({ request, reply, session, form }) => {
    const id = form.get('session') === 'others' ? undefined : demandId(form.get('session'))
    const currentHash = hashSecret(sentSessionId(context, request) ?? '')
    await removeSessionsOfUser(context.db, { userId: session.userId, currentHash, id })
    context.log.info({ event: 'session_ended_by_person', user_id: session.userId }, 'session ended')
    return redirectToAccount(context, reply, id === undefined ? 'sessions' : 'session')
  })
}

/** Changes the password; every other session ends. */
export function changeOwnPassword(context: Context): RouteHandlerMethod {
  return withForm(context, async ({ request, reply, session, form }) => {
    demandPasswordSignIn(context.config)
    const passwords = { current: form.get('current_password') ?? '', next: form.get('new_password') ?? '' }
    const result = await changePassword(context, session.userId, passwords)
    if (result.outcome === 'changed') {
      const user = { id: session.userId, password_hash: result.passwordHash }
      const sessionId = await openSession(context, user, originOf(request))
      if (sessionId !== undefined) giveSession(context, reply, sessionId)
      return redirectToAccount(context, reply, 'password')
    }
    if (result.outcome === 'throttled') reply.header('retry-after', result.retryAfterSeconds)
    reply.code(result.outcome === 'throttled' ? 429 : 403)
    return showAccount(context, request, reply, session, { text: problemOf(result), isProblem: true })
  })
}

function problemOf(result: Exclude<ChangePasswordResult, { outcome: 'changed' }>): string {
  switch (result.outcome) {
    case 'throttled':
      return TEXTS.tooManyAttempts
    case 'wrong':
      return TEXTS.account.wrongPassword
    case 'refused':
      return TEXTS.account.refusedPassword(result.problem)
  }
}

/** Sends the browser to a provider, to link an account there. A browser that was left open is not enough for that. */
export function linkAccount(context: Context): RouteHandlerMethod {
  return withForm(context, async ({ request, reply, session, form }) => {
    const provider = await demandOpenProvider(context, form.get('provider') ?? '')
    if (session.ageSeconds > RECENT_SECONDS) {
      const parameters = new Map([['prompt', 'login']])
      const problem = TEXTS.account.signInToLink
      return showSignInForm(context, request, reply.code(403), { page: 'account', parameters, problem })
    }
    await countKept(context, networkOf(request.ip), '/login')
    const address = await beginUpstreamSignIn(context, provider, {
      browserSecret: browserSecretOf(context, request) ?? '',
      linkUserId: session.userId,
      continueQuery: queryFor('account'),
      prompt: 'select_account',
    })
    return redirectTo(reply, address.href)
  })
}

/** Ends the link to an account of a provider, once the person has confirmed it. */
export function unlinkAccount(context: Context): RouteHandlerMethod {
  return withForm(context, async (asked) => {
    const { reply, session, form } = asked
    const providerId = form.get('provider') ?? ''
    const linked = await listUpstreamAccounts(context.db, session.userId)
    const account = linked.find((one) => one.providerId === providerId)
    if (account === undefined) throw nothingSuch()
    if (!isConfirmed(form)) {
      const question = TEXTS.confirm.unlink(account.providerName)
      return confirm(asked, '/providers/unlink', question)
    }
    const key = { userId: session.userId, providerId }
    const unlinked = await unlinkUpstreamAccount(context.db, key, context.config.passwordSignIn)
    if (unlinked) {
      context.log.info({ event: 'account_unlinked', user_id: session.userId, provider: providerId }, 'account unlinked')
    }
    return redirectToAccount(context, reply, unlinked ? 'unlinked' : 'only-way')
  })
}

/** Reads a form of the account page; whoever is no longer signed in does that first. */
function withForm(context: Context, work: (asked: AccountForm) => Promise<FastifyReply>): RouteHandlerMethod {
  return async (request, reply) => {
    const form = readParameters(request.body)
    const session = await readSession(context, request)
    if (session === undefined) return toSignIn(context, reply)
    checkFormToken(context, request, form.get('form_token'))
    return work({ context, request, reply, session, form })
  }
}

function isConfirmed(form: Parameters): boolean {
  return form.get('confirmed') === 'yes'
}

/** Asks before something that can't be undone: the same form once more, with `confirmed`. */
function confirm(
  { context, request, reply, form }: AccountForm,
  path: `/${string}`,
  question: { title: string; explanation: string; button: string },
): FastifyReply {
  const { basePath } = context.config
  const fields = [...form].filter(([name]) => name !== 'form_token').map(([name, value]) => ({ name, value }))
  return sendPage(reply, 'confirm', {
    ...question,
    action: `${basePath}/account${path}`,
    formToken: formToken(context, request, reply),
    fields,
    backHref: `${basePath}/account`,
  })
}

function demandId(text: string | undefined): string {
  if (text === undefined || !isId(text)) throw nothingSuch()
  return text
}

function nothingSuch(): OAuthError {
  return new OAuthError('not_found', 'there is nothing at this address')
}
