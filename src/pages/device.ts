import { createHash } from 'node:crypto'
import type { FastifyReply, FastifyRequest, RouteHandlerMethod } from 'fastify'
import { documentHost, findClient } from '../clients/find.ts'
import type { Context } from '../context.ts'
import { networkOf } from '../operations/network.ts'
import { displayUserCode, readUserCode } from '../protocol/device-code.ts'
import { type Parameters, readParameters } from '../protocol/parameters.ts'
import type { ClientRow, ResourceRow } from '../store/database.ts'
import { decideDeviceCode, findOpenedDeviceCode, type OpenedDeviceCode, openDeviceCode } from '../store/device-code.ts'
import { findResourceById } from '../store/resource.ts'
import { listResourceUpstreams, type ResourceUpstream } from '../store/resource-upstream.ts'
import type { Session } from '../store/session.ts'
import { hashSecret } from '../tokens/secret.ts'
import { admitDeviceGuess } from '../users/device-guess.ts'
import { formToken, isFormTokenRight, readSession, sentSessionId } from './browser.ts'
import { queryFor } from './next-page.ts'
import { redirectTo, sendPage } from './page.ts'
import { TEXTS } from './texts.ts'

/** Where a person enters the code of a device (RFC 8628 §3.3), or finds it filled in (§3.3.1). Nothing is opened yet. */
export function showDevice(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const typed = readParameters(request.query).get('user_code') ?? ''
    const session = await readSession(context, request)
    return session === undefined ? toSignIn(context, reply, typed) : showForm(context, request, reply, typed)
  }
}

/** Opens the code for this session, and asks. From now on, no other session may decide. */
export function openDevice(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const posted = await readForm(context, request, reply)
    if (posted === undefined) return reply
    const { fresh, typed, session, key, userCode } = posted
    if (!fresh) return showForm(context, request, reply.code(403), typed, TEXTS.device.expired)
    const wait = await admitDeviceGuess(context, session.userId)
    if (wait !== undefined) {
      reply.code(429).header('retry-after', wait)
      return showForm(context, request, reply, typed, TEXTS.tooManyAttempts)
    }
    const opened = userCode && (await openDeviceCode(context.db, key.userCodeHash, key.sessionHash))
    const asked = userCode && opened && (await findAsked(context, request, userCode, opened))
    return asked ? ask(context, request, reply, asked, session) : refuseCode(context, request, reply, typed)
  }
}

/** The decision of the session that opened the code. */
export function decideDevice(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const posted = await readForm(context, request, reply)
    if (posted === undefined) return reply
    const { form, fresh, typed, session, key, userCode } = posted
    const opened = userCode && (await findOpenedDeviceCode(context.db, key))
    const asked = userCode && opened && (await findAsked(context, request, userCode, opened))
    if (!asked) return refuseCode(context, request, reply, typed)
    if (!fresh) return ask(context, request, reply.code(403), asked, session, TEXTS.device.expired)
    const approved = form.get('decision') === 'approve'
    const denied = form.get('decision') === 'deny'
    if (!denied && !(approved && digest(asked) === form.get('shown'))) {
      return ask(context, request, reply, asked, session) // it has changed since it was shown
    }
    const decision = { ...key, userId: session.userId, approved, scope: asked.scope, from: request.ip }
    if (!(await decideDeviceCode(context.db, decision))) {
      return refuseCode(context, request, reply, typed)
    }
    const facts = { client_id: asked.client.id, user_id: session.userId, resource: asked.resource.uri }
    context.log.info({ event: approved ? 'device_approved' : 'device_denied', ...facts }, 'device decided')
    return sendPage(reply, 'device-done', { approved, clientName: nameOf(asked.client) })
  }
}

/** What a person sent with the form of a code. */
interface PostedCode {
  form: Parameters
  /** the form is one that this browser was shown in this session; else it is shown again */
  fresh: boolean
  typed: string
  /** `undefined` when what was typed can't be one */
  userCode: string | undefined
  /** of the row of the code, when this session may have it */
  key: { userCodeHash: Buffer; sessionHash: Buffer }
  session: Session
}

/**
 * Reads the posted form of a person who is signed in.
 *
 * @returns `undefined` when nobody is: the browser has been sent to sign in
 */
async function readForm(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<PostedCode | undefined> {
  const form = readParameters(request.body)
  const typed = form.get('user_code') ?? ''
  const session = await readSession(context, request)
  if (session === undefined) {
    toSignIn(context, reply, typed)
    return undefined
  }
  const fresh = isFormTokenRight(context, request, form.get('form_token'))
  const userCode = readUserCode(typed)
  const sessionHash = hashSecret(sentSessionId(context, request) ?? '')
  return { form, fresh, typed, userCode, key: { userCodeHash: hashSecret(userCode ?? ''), sessionHash }, session }
}

function refuseCode(context: Context, request: FastifyRequest, reply: FastifyReply, typed: string): FastifyReply {
  return showForm(context, request, reply.code(404), typed, TEXTS.device.wrong)
}

/** What a person is asked about a device. */
interface Asked {
  userCode: string
  client: ClientRow
  resource: ResourceRow
  /** what is still to be had of what the device asked for */
  scope: string[]
  /** where the resource server may act for the person */
  upstreams: ResourceUpstream[]
}

/** @throws {OAuthError} when the client has a metadata document, and it doesn't say now who the client is */
async function findAsked(
  context: Context,
  request: FastifyRequest,
  userCode: string,
  opened: OpenedDeviceCode,
): Promise<Asked | undefined> {
  const client = await findClient(context, opened.clientId, { network: networkOf(request.ip, 48) })
  const resource = await findResourceById(context.db, opened.resourceId)
  if (client === undefined || client.disabled_at !== null || resource === undefined) return undefined
  const scope = opened.scope.filter((requested) => resource.scopes.some(({ name }) => name === requested))
  return { userCode, client, resource, scope, upstreams: await listResourceUpstreams(context.db, resource.id) }
}

function ask(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  asked: Asked,
  session: Session,
  problem?: string,
): FastifyReply {
  const { basePath } = context.config
  const { client, resource, scope, upstreams, userCode } = asked
  const code = displayUserCode(userCode)
  const host = documentHost(client)
  return sendPage(reply, 'consent', {
    action: `${basePath}/device/decision`,
    switchAction: `${basePath}/logout?${queryFor('device', new Map([['user_code', code]]))}`,
    formToken: formToken(context, request, reply),
    shown: digest(asked),
    client: { name: nameOf(client), ...(host === undefined ? {} : { host }) },
    redirect: { kind: 'device', name: code },
    resource: { name: resource.name ?? resource.uri, uri: resource.uri },
    newScopes: resource.scopes.filter(({ name }) => scope.includes(name)),
    grantedScopes: [],
    upstreams,
    username: session.username,
    impersonationWarning: true,
    ...(problem === undefined ? {} : { problem }),
  })
}

/** A digest of what the person judges: what is approved is what was seen. */
function digest({ client, resource, scope, upstreams }: Asked): string {
  const seen = [client.id, client.name, resource.id, resource.name, resource.scopes, scope, upstreams]
  return createHash('sha256').update(JSON.stringify(seen)).digest('base64url')
}

function nameOf(client: ClientRow): string {
  return client.name ?? TEXTS.namelessApplication
}

function toSignIn({ config }: Context, reply: FastifyReply, typed: string): FastifyReply {
  const userCode = readUserCode(typed)
  const parameters = new Map(userCode === undefined ? [] : [['user_code', displayUserCode(userCode)] as const])
  return redirectTo(reply, `${config.basePath}/login?${queryFor('device', parameters)}`)
}

function showForm(
  context: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  typed: string,
  problem?: string,
): FastifyReply {
  return sendPage(reply, 'device', {
    action: `${context.config.basePath}/device`,
    formToken: formToken(context, request, reply),
    userCode: typed.slice(0, 20),
    ...(problem === undefined ? {} : { problem }),
  })
}
