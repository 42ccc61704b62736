import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Context } from '../context.ts'
import type { Parameters } from '../protocol/parameters.ts'
import { findClient } from '../store/client.ts'
import { listIdentityProviders } from '../store/identity-provider.ts'
import { formToken } from './browser.ts'
import { type NextPage, queryFor } from './next-page.ts'
import { sendPage } from './page.ts'

/** Where the browser goes on to, and what is to be shown of an earlier try. */
export interface SignInForm {
  page: NextPage
  parameters: Parameters
  username?: string
  problem?: string
}

/** Shows the sign-in page: the identity providers, and the form for a password. */
export async function showSignInForm(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  { page, parameters, username = '', problem }: SignInForm,
): Promise<FastifyReply> {
  const { basePath, passwordSignIn } = context.config
  const clientId = page === 'authorize' ? parameters.get('client_id') : undefined
  const client = clientId === undefined ? undefined : await findClient(context.db, clientId)
  const providers = await listIdentityProviders(context.db)
  const query = queryFor(page, parameters)
  return sendPage(reply, 'sign-in', {
    action: `${basePath}/login?${query}`,
    formToken: formToken(context, request, reply),
    username,
    withPassword: passwordSignIn,
    providers: providers
      .filter(({ disabled_at }) => disabled_at === null)
      .map(({ id, name }) => ({ name, action: `${basePath}/login/${id}?${query}` })),
    ...(problem === undefined ? {} : { problem }),
    ...(client?.name ? { clientName: client.name } : {}),
  })
}
