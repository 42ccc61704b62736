import type { FastifyReply, FastifyRequest, RouteHandlerMethod } from 'fastify'
import type { Context } from '../context.ts'
import { networkOf } from '../operations/network.ts'
import { readParameters } from '../protocol/parameters.ts'
import { findClient } from '../store/client.ts'
import { signIn, signOut } from '../users/sign-in.ts'
import {
  formToken,
  giveKnownBrowser,
  giveSession,
  isFormTokenRight,
  sentKnownBrowser,
  sentSessionId,
} from './browser.ts'
import { nextAddress, queryFor, readNextPage } from './next-page.ts'
import { redirectTo, sendPage } from './page.ts'

/** The sign-in page. The query says where to go on to. */
export function showLogin(context: Context): RouteHandlerMethod {
  return async (request, reply) => showForm(context, request, reply, '')
}

/** Signs in, gives the browser a new session, and goes on. */
export function login(context: Context): RouteHandlerMethod {
  const { basePath } = context.config
  return async (request, reply) => {
    const { page, parameters } = readNextPage(readParameters(request.query))
    const form = readParameters(request.body)
    const username = form.get('username') ?? ''
    if (!isFormTokenRight(context, request, form.get('form_token'))) {
      const problem = 'This page was no longer valid. Please try once more.'
      return showForm(context, request, reply.code(403), username, problem)
    }
    const result = await signIn(context, {
      username,
      password: form.get('password') ?? '',
      network: networkOf(request.ip),
      knownBrowser: sentKnownBrowser(context, request),
    })
    request.log.info({ event: 'sign_in', outcome: result.outcome, network: networkOf(request.ip) }, 'sign-in')
    if (result.outcome === 'throttled') {
      const minutes = Math.ceil(result.retryAfterSeconds / 60)
      const wait = minutes === 1 ? 'a minute' : `${minutes} minutes`
      reply.code(429).header('retry-after', result.retryAfterSeconds)
      return showForm(context, request, reply, username, `There were too many attempts. Please try again in ${wait}.`)
    }
    if (result.outcome === 'refused') {
      return showForm(context, request, reply.code(403), username, 'The username or the password is not right.')
    }
    await signOut(context, sentSessionId(context, request)) // the session changes with who is signed in
    giveSession(context, reply, result.sessionId)
    if (result.newKnownBrowser !== undefined) giveKnownBrowser(context, reply, result.newKnownBrowser)
    return redirectTo(reply, nextAddress(basePath, page, parameters))
  }
}

async function showForm(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  username: string,
  problem?: string,
): Promise<FastifyReply> {
  const { page, parameters } = readNextPage(readParameters(request.query))
  const clientId = page === 'authorize' ? parameters.get('client_id') : undefined
  const client = clientId === undefined ? undefined : await findClient(context.db, clientId)
  return sendPage(reply, 'sign-in', {
    action: `${context.config.basePath}/login?${queryFor(page, parameters)}`,
    formToken: formToken(context, request, reply),
    username,
    ...(problem === undefined ? {} : { problem }),
    ...(client?.name ? { clientName: client.name } : {}),
  })
}
