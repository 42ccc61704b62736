import type { RouteHandlerMethod } from 'fastify'
import type { Context } from '../context.ts'
import { readParameters } from '../protocol/parameters.ts'
import { signOut } from '../users/sign-in.ts'
import { checkFormToken, sentSessionId, takeSession } from './browser.ts'
import { queryFor, readNextPage } from './next-page.ts'
import { redirectTo, sendPage } from './page.ts'

/** Ends the browser's session; with `continue` (a switch of accounts) on to the sign-in. */
export function logout(context: Context): RouteHandlerMethod {
  const { basePath } = context.config
  return async (request, reply) => {
    checkFormToken(context, request, readParameters(request.body).get('form_token'))
    const query = readParameters(request.query)
    const { page, parameters } = readNextPage(query)
    await signOut(context, sentSessionId(context, request))
    takeSession(context, reply)
    if (query.has('continue')) return redirectTo(reply, `${basePath}/login?${queryFor(page, parameters)}`)
    return sendPage(reply, 'signed-out', { signInHref: `${basePath}/login` })
  }
}
