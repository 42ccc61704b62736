import type { RouteHandlerMethod } from 'fastify'
import type { Context } from '../context.ts'
import { formToken, readSession } from './browser.ts'
import { queryFor } from './next-page.ts'
import { redirectTo, sendPage } from './page.ts'

/** Where a person lands who comes without an application: who is signed in, and the way out. */
export function account(context: Context): RouteHandlerMethod {
  const { basePath } = context.config
  return async (request, reply) => {
    const session = await readSession(context, request)
    if (session === undefined) return redirectTo(reply, `${basePath}/login?${queryFor('account')}`)
    return sendPage(reply, 'account', {
      username: session.username,
      isAdministrator: session.isAdministrator,
      formToken: formToken(context, request, reply),
      signOutAction: `${basePath}/logout`,
    })
  }
}

/** The bare address of the server, which people try first. */
export function toAccount({ config }: Context): RouteHandlerMethod {
  return async (_request, reply) => redirectTo(reply, `${config.basePath}/account`)
}
