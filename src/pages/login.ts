import type { RouteHandlerMethod } from 'fastify'
import type { Context } from '../context.ts'
import { networkOf } from '../operations/network.ts'
import { readParameters } from '../protocol/parameters.ts'
import { demandPasswordSignIn, signIn, signOut } from '../users/sign-in.ts'
import {
  giveKnownBrowser,
  giveSession,
  isFormTokenRight,
  originOf,
  sentKnownBrowser,
  sentSessionId,
} from './browser.ts'
import { nextAddress, readNextPage } from './next-page.ts'
import { redirectTo } from './page.ts'
import { showSignInForm } from './sign-in-form.ts'
import { TEXTS } from './texts.ts'

/** The sign-in page. The query says where to go on to. */
export function showLogin(context: Context): RouteHandlerMethod {
  return async (request, reply) => showSignInForm(context, request, reply, readNextPage(readParameters(request.query)))
}

/** Signs in, gives the browser a new session, and goes on. */
export function login(context: Context): RouteHandlerMethod {
  const { basePath } = context.config
  return async (request, reply) => {
    demandPasswordSignIn(context.config)
    const { page, parameters } = readNextPage(readParameters(request.query))
    const form = readParameters(request.body)
    const username = form.get('username') ?? ''
    const again = (problem: string) => showSignInForm(context, request, reply, { page, parameters, username, problem })
    if (!isFormTokenRight(context, request, form.get('form_token'))) {
      reply.code(403)
      return again(TEXTS.formExpired)
    }
    const result = await signIn(context, {
      username,
      password: form.get('password') ?? '',
      network: networkOf(request.ip),
      origin: originOf(request),
      knownBrowser: sentKnownBrowser(context, request),
    })
    request.log.info({ event: 'sign_in', outcome: result.outcome, network: networkOf(request.ip) }, 'sign-in')
    if (result.outcome === 'throttled') {
      reply.code(429).header('retry-after', result.retryAfterSeconds)
      return again(TEXTS.signIn.throttled(Math.ceil(result.retryAfterSeconds / 60)))
    }
    if (result.outcome === 'refused') {
      reply.code(403)
      return again(TEXTS.signIn.wrong)
    }
    await signOut(context, sentSessionId(context, request)) // the session changes with who is signed in
    giveSession(context, reply, result.sessionId)
    if (result.newKnownBrowser !== undefined) giveKnownBrowser(context, reply, result.newKnownBrowser)
    return redirectTo(reply, nextAddress(basePath, page, parameters))
  }
}
