import bowser from 'bowser'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Context } from '../context.ts'
import { redirectPlace } from '../protocol/redirect-uri.ts'
import { type LivingGrant, listGrants } from '../store/grant.ts'
import { listIdentityProviders } from '../store/identity-provider.ts'
import { listSessions, type OpenSession, type Session } from '../store/session.ts'
import { listUpstreamAccounts } from '../store/upstream-account.ts'
import { findUserById } from '../store/user.ts'
import { hashSecret } from '../tokens/secret.ts'
import { formToken, sentSessionId } from './browser.ts'
import { queryFor } from './next-page.ts'
import { redirectTo, type ShownGrant, type ShownSession, sendPage } from './page.ts'
import { type Notice, TEXTS } from './texts.ts'

/** Shows the account page of whoever is signed in. */
export async function showAccount(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  session: Session,
  notice?: Notice,
): Promise<FastifyReply> {
  const { db, config } = context
  const { userId } = session
  const sessionHash = hashSecret(sentSessionId(context, request) ?? '')
  const user = await findUserById(db, userId)
  const linked = await listUpstreamAccounts(db, userId)
  const providers = await listIdentityProviders(db)
  const sessions = await listSessions(db, userId, sessionHash)
  return sendPage(reply, 'account', {
    username: session.username,
    isAdministrator: session.isAdministrator,
    formToken: formToken(context, request, reply),
    base: `${config.basePath}/account`,
    signOutAction: `${config.basePath}/logout`,
    grants: (await listGrants(db, { userId })).map(shownGrant),
    sessions: sessions.map(shownSession),
    hasPassword: user?.password_hash != null && config.passwordSignIn,
    linked: linked.map((one) => ({ ...one, linkedAt: shownInstant(one.linkedAt) })),
    linkable: providers
      .filter(({ id, disabled_at }) => disabled_at === null && !linked.some(({ providerId }) => providerId === id))
      .map(({ id, name }) => ({ id, name })),
    ...(notice === undefined ? {} : { notice }),
  })
}

/** To the account page, which says what was just done. */
export function redirectToAccount(
  { config }: Context,
  reply: FastifyReply,
  done: keyof typeof TEXTS.account.notices,
): FastifyReply {
  return redirectTo(reply, `${config.basePath}/account?done=${done}`)
}

/** On to the sign-in, and back. */
export function toSignIn({ config }: Context, reply: FastifyReply): FastifyReply {
  return redirectTo(reply, `${config.basePath}/login?${queryFor('account')}`)
}

function shownGrant(grant: LivingGrant): ShownGrant {
  const places = new Set(grant.redirectUris.map((uri) => placeName(uri)))
  return {
    id: grant.id,
    name: grant.clientName ?? TEXTS.namelessApplication,
    host: grant.clientRegistration === 'document' ? new URL(grant.clientId).host : [...places].join(', '),
    resource: grant.resourceName ?? grant.resource,
    resourceUri: grant.resource,
    scope: grant.scope,
    upstream: grant.upstream,
    connectedAt: shownInstant(grant.createdAt),
    connectedFrom: grant.approvedFrom,
    lastUsedAt: shownInstant(grant.lastUsedAt),
  }
}

function placeName(uri: string): string {
  const place = redirectPlace(uri)
  return place.kind === 'loopback' ? TEXTS.account.ownComputer : place.name
}

function shownSession(session: OpenSession): ShownSession {
  return {
    id: session.id,
    browser: shownBrowser(session.userAgent),
    address: session.address,
    providerName: session.providerName,
    createdAt: shownInstant(session.createdAt),
    isCurrent: session.isCurrent,
  }
}

/** What a browser says of itself, in words that people know. */
function shownBrowser(userAgent: string | null): string {
  const { namelessBrowser, unknownBrowser, browserOn } = TEXTS.account
  if (userAgent === null || userAgent.trim() === '') return namelessBrowser
  const { browser, os } = bowser.parse(userAgent)
  const name = browser.name || unknownBrowser // bowser's word for what it doesn't know is empty
  return os.name ? browserOn(name, os.name) : name
}

/** In UTC, to the minute: the server doesn't know where the person is. */
function shownInstant(instant: Date): string {
  return `${instant.toISOString().slice(0, 16).replace('T', ' ')} UTC`
}
