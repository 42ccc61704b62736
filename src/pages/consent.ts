import type { FastifyReply, FastifyRequest, RouteHandlerMethod } from 'fastify'
import type { GrantableRequest } from '../clients/authorization-request.ts'
import { documentHost } from '../clients/find.ts'
import type { Context } from '../context.ts'
import { canBeToldApart } from '../protocol/consent.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { readParameters, sortParameters } from '../protocol/parameters.ts'
import { redirectPlace } from '../protocol/redirect-uri.ts'
import { listResourceUpstreams } from '../store/resource-upstream.ts'
import type { Session } from '../store/session.ts'
import { askingClient, digestQuestion, findConsentQuestion, issueCode, rememberConsent } from '../users/consent.ts'
import { redirectCode, withAuthorizationRequest } from './authorization.ts'
import { formToken, isFormTokenRight, readSession } from './browser.ts'
import { queryFor } from './next-page.ts'
import { redirectTo, sendPage } from './page.ts'
import { TEXTS } from './texts.ts'

/** The consent page. The authorization request travels in the query; nothing is stored before a decision. */
export function showConsent(context: Context): RouteHandlerMethod {
  return async (request, reply) =>
    withAuthorizationRequest(context, reply, request.query, async (asked) => {
      const session = await readSession(context, request)
      if (session === undefined) return toSignIn(context, request, reply)
      return showQuestion(context, request, reply, asked, session)
    })
}

/** The decision. Posted twice, it redirects twice, each time with a code that works. */
export function decideConsent(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const form = readParameters(request.body)
    return withAuthorizationRequest(context, reply, request.query, async (asked) => {
      const session = await readSession(context, request)
      if (session === undefined) return toSignIn(context, request, reply)
      if (!isFormTokenRight(context, request, form.get('form_token'))) {
        return showQuestion(context, request, reply.code(403), asked, session, TEXTS.consent.expired)
      }
      const facts = { client_id: asked.client.id, user_id: session.userId, resource: asked.resource.uri }
      if (form.get('decision') === 'deny') {
        context.log.info({ event: 'consent_denied', ...facts }, 'consent denied')
        throw new OAuthError('access_denied', 'the person denied the request')
      }
      const upstreams = await listResourceUpstreams(context.db, asked.resource.id)
      if (form.get('decision') !== 'approve' || form.get('shown') !== digestQuestion(asked, upstreams)) {
        return showQuestion(context, request, reply, asked, session) // it has changed since it was shown
      }
      await rememberConsent(context, asked, session.userId)
      context.log.info({ event: 'consent_given', ...facts, scope: asked.scope.join(' ') }, 'consent given')
      return redirectCode(context, reply, asked.target, await issueCode(context, asked, session.userId, request.ip))
    })
  }
}

function toSignIn({ config }: Context, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  return redirectTo(
    reply,
    `${config.basePath}/login?${queryFor('authorize', sortParameters(request.query).parameters)}`,
  )
}

async function showQuestion(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  asked: GrantableRequest,
  session: Session,
  problem?: string,
): Promise<FastifyReply> {
  const { basePath } = context.config
  const { client, resource, scope, target } = asked
  const question = (await findConsentQuestion(context, asked, session.userId)) ?? { newScope: scope, grantedScope: [] }
  const upstreams = await listResourceUpstreams(context.db, resource.id)
  const { parameters } = sortParameters(request.query)
  const place = redirectPlace(target.redirectUri)
  const uri = client.description.client_uri
  const host = documentHost(client)
  return sendPage(reply, 'consent', {
    action: `${basePath}/consent?${new URLSearchParams([...parameters])}`,
    switchAction: `${basePath}/logout?${queryFor('authorize', parameters)}`,
    formToken: formToken(context, request, reply),
    shown: digestQuestion(asked, upstreams),
    client: {
      name: client.name ?? TEXTS.namelessApplication,
      ...(host === undefined ? {} : { host }),
      ...(typeof uri === 'string' ? { uri } : {}),
    },
    redirect: place,
    resource: { name: resource.name ?? resource.uri, uri: resource.uri },
    newScopes: resource.scopes.filter(({ name }) => question.newScope.includes(name)),
    grantedScopes: resource.scopes.filter(({ name }) => question.grantedScope.includes(name)),
    upstreams,
    username: session.username,
    impersonationWarning: !canBeToldApart(askingClient(asked)),
    ...(problem === undefined ? {} : { problem }),
  })
}
