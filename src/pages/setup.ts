import type { FastifyReply, FastifyRequest, RouteHandlerMethod } from 'fastify'
import type { Context } from '../context.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { readParameters } from '../protocol/parameters.ts'
import { findSetupLink } from '../store/setup-link.ts'
import { credentialHash } from '../tokens/secret.ts'
import { createFirstUser } from '../users/create.ts'
import { demandPasswordSignIn, openSession } from '../users/sign-in.ts'
import { checkFormToken, formToken, giveSession, originOf } from './browser.ts'
import { sendPage } from './page.ts'

/** The page behind the one-time link that the log prints while there is no user. */
export function showSetup(context: Context): RouteHandlerMethod {
  return async (request, reply) => showForm(context, request, reply, await demandLink(context, request), '')
}

/** Creates the first user, signs in, and says what to do next. */
export function setup(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const link = await demandLink(context, request)
    const form = readParameters(request.body)
    checkFormToken(context, request, form.get('form_token'))
    const username = form.get('username') ?? ''
    const result = await createFirstUser(context, { username, password: form.get('password') ?? '' })
    if (result.outcome !== 'created') return showForm(context, request, reply.code(400), link, username, result.problem)
    context.log.info({ event: 'first_user_created', user_id: result.user.id }, 'first user created')
    const { id, passwordHash } = result.user
    const session = await openSession(context, { id, password_hash: passwordHash }, originOf(request))
    if (session !== undefined) giveSession(context, reply, session)
    return sendPage(reply, 'next-steps', {
      username,
      issuer: context.config.issuer,
      accountHref: `${context.config.basePath}/account`,
    })
  }
}

/** @throws {OAuthError} when the link isn't good, or no longer, or passwords are off: it is with one that it helps */
async function demandLink(context: Context, request: FastifyRequest): Promise<string> {
  demandPasswordSignIn(context.config)
  const token = readParameters(request.query).get('token') ?? ''
  const secretHash = credentialHash('setupLink', token)
  if (secretHash !== undefined && (await findSetupLink(context.db, secretHash))) return token
  throw new OAuthError('access_denied', 'this link is no longer good', 'setup_link_not_valid', { status: 403 })
}

function showForm(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  token: string,
  username: string,
  problem?: string,
): FastifyReply {
  return sendPage(reply, 'setup', {
    action: `${context.config.basePath}/setup?token=${token}`,
    formToken: formToken(context, request, reply),
    username,
    ...(problem === undefined ? {} : { problem }),
  })
}
