import type { Socket } from 'node:net'
import cookie from '@fastify/cookie'
import formbody from '@fastify/formbody'
import view from '@fastify/view'
import { Eta } from 'eta'
import Fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
  type RouteHandlerMethod,
} from 'fastify'
import type { Context } from './context.ts'
import { answerError } from './endpoints/answer-error.ts'
import { deleteClient, readClient, updateClient } from './endpoints/client-configuration.ts'
import { allowCrossOrigin, preflight } from './endpoints/cross-origin.ts'
import { deviceAuthorization } from './endpoints/device-authorization.ts'
import { discovery } from './endpoints/discovery.ts'
import { live, ready } from './endpoints/health.ts'
import { introspect } from './endpoints/introspect.ts'
import { jwks } from './endpoints/jwks.ts'
import { pushedAuthorizationRequest } from './endpoints/pushed-authorization-request.ts'
import { register } from './endpoints/register.ts'
import { revoke } from './endpoints/revoke.ts'
import { token } from './endpoints/token.ts'
import { watchConnections } from './operations/drain.ts'
import { RequestLog } from './operations/log.ts'
import { VIEWS } from './package.ts'
import {
  account,
  changeOwnPassword,
  endGrant,
  endSession,
  linkAccount,
  toAccount,
  unlinkAccount,
} from './pages/account.ts'
import { authorize, authorizePosted } from './pages/authorize.ts'
import { decideConsent, showConsent } from './pages/consent.ts'
import { decideDevice, openDevice, showDevice } from './pages/device.ts'
import { login, showLogin } from './pages/login.ts'
import { logout } from './pages/logout.ts'
import { createLooks } from './pages/looks.ts'
import { sendErrorPage } from './pages/page.ts'
import { setup, showSetup } from './pages/setup.ts'
import { departToProvider, returnFromProvider } from './pages/upstream.ts'
import { OAuthError } from './protocol/oauth-error.ts'
import { randomId } from './tokens/secret.ts'

const BODY_LIMIT = 64 * 1024 // bytes: a registration with fifty redirect URIs fits
const LONGEST_HEADER = 32 * 1024 // bytes: an authorization request with a long state travels in the URL

/** Routes have no schemas of Fastify's: what comes in is validated by zod, and loading its compilers is slow. */
const NO_COMPILERS = { buildValidator: noCompiler, buildSerializer: noCompiler }

function noCompiler(): never {
  throw new Error('routes have no schemas')
}

/** Every URL, and what answers it. All are below the issuer's path, and so are the well-knowns (RFC 8414 §3). */
export async function createServer(context: Context): Promise<FastifyInstance> {
  const { config } = context
  const base = config.basePath
  const server = createFastify(context)

  // Machines: JSON, no cookies. Clients that are pages may call these from any origin …
  await server.register(async (machines) => {
    await acceptForms(machines)
    allowCrossOrigin(machines)
    machines.get(`/.well-known/oauth-authorization-server${base}`, discovery(context))
    machines.get('/.well-known/*', notFound) // clients that are pages try several: JSON that any origin may read
    if (base !== '') {
      machines.get(`${base}/.well-known/oauth-authorization-server`, discovery(context))
      machines.get(`${base}/.well-known/*`, notFound)
    }
    machines.get(`${base}/jwks`, jwks(context))
    machines.post(`${base}/token`, token(context))
    machines.post(`${base}/revoke`, revoke(context))
    machines.post(`${base}/par`, pushedAuthorizationRequest(context))
    for (const path of ['/jwks', '/token', '/revoke', '/par', '/.well-known/*']) {
      machines.options(`${base}${path}`, preflight)
    }
    if (base !== '') machines.options('/.well-known/*', preflight)
  })
  if (config.registration !== 'off') {
    await server.register(async (machines) => {
      allowCrossOrigin(machines)
      machines.removeContentTypeParser('text/plain') // leaves JSON: this is the one address that reads it
      machines.post(`${base}/register`, register(context))
      machines.get(`${base}/register`, readClient(context))
      machines.put(`${base}/register`, updateClient(context))
      machines.delete(`${base}/register`, deleteClient(context))
      machines.options(`${base}/register`, preflight)
    })
  }
  // … and these not: resource servers, devices and orchestrators are no pages.
  await server.register(async (machines) => {
    await acceptForms(machines)
    machines.post(`${base}/introspect`, introspect(context))
    machines.post(`${base}/device_authorization`, deviceAuthorization(context))
    machines.get(`${base}/health/live`, live())
    machines.get(`${base}/health/ready`, ready(context))
  })

  // People: pages.
  await server.register(async (pages) => {
    await acceptForms(pages)
    await pages.register(cookie)
    pages.setErrorHandler((error, request, reply) =>
      wantsJson(request) ? answerError(context, error, request, reply) : sendErrorPage(error, request, reply),
    )
    pages.get(`${base}/authorize`, authorize(context))
    pages.post(`${base}/authorize`, authorizePosted(context))
    pages.get(`${base}/login`, showLogin(context))
    pages.post(`${base}/login`, login(context))
    pages.post(`${base}/login/:provider`, departToProvider(context))
    pages.get(`${base}/login/:provider/callback`, returnFromProvider(context))
    pages.post(`${base}/logout`, logout(context))
    pages.get(`${base}/consent`, showConsent(context))
    pages.post(`${base}/consent`, decideConsent(context))
    pages.get(`${base}/device`, showDevice(context))
    pages.post(`${base}/device`, openDevice(context))
    pages.post(`${base}/device/decision`, decideDevice(context))
    pages.get(`${base}/account`, account(context))
    pages.post(`${base}/account/grants/end`, endGrant(context))
    pages.post(`${base}/account/sessions/end`, endSession(context))
    pages.post(`${base}/account/password`, changeOwnPassword(context))
    pages.post(`${base}/account/providers/link`, linkAccount(context))
    pages.post(`${base}/account/providers/unlink`, unlinkAccount(context))
    pages.get(`${base}/setup`, showSetup(context))
    pages.post(`${base}/setup`, setup(context))
    pages.get(`${base}/`, toAccount(context))
    if (base !== '') pages.get(base, toAccount(context))
  })
  return server
}

function createFastify(context: Context): FastifyInstance {
  const { trustProxy } = context.config
  const server = Fastify({
    loggerInstance: context.log as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true }), // its lines would hold queries, and so secrets
    genReqId: randomId,
    childLoggerFactory: (_log, bindings) => new RequestLog(context.log, bindings) as FastifyBaseLogger,
    trustProxy: typeof trustProxy === 'number' ? (_address, hop) => hop < trustProxy : trustProxy,
    bodyLimit: BODY_LIMIT,
    requestTimeout: 60_000, // milliseconds: slow bodies must not hold their sockets for ever
    return503OnClosing: false, // what still comes on an open connection is answered, and the connection closed
    http: { maxHeaderSize: LONGEST_HEADER },
    schemaController: { compilersFactory: NO_COMPILERS },
    frameworkErrors: (error, request, reply) => {
      answerError(context, error, request as FastifyRequest, reply as FastifyReply)
    },
    clientErrorHandler: answerBrokenHttp,
  })
  const closeIdle = watchConnections(server.server)
  server.addHook('preClose', async () => closeIdle())
  const methods = new Map<string, string[]>()
  server.addHook('onRoute', ({ url, method }) => {
    methods.set(url, [...(methods.get(url) ?? []), ...[method].flat()])
  })
  server.decorate('looks', createLooks(context.config))
  server.register(view, { engine: { eta: new Eta({ views: VIEWS, cache: true }) }, root: VIEWS })
  server.setErrorHandler((error, request, reply) => answerError(context, error, request, reply))
  server.setNotFoundHandler((request, reply) => {
    const allowed = methods.get(request.url.split('?', 1)[0] ?? '')
    if (allowed !== undefined) reply.header('allow', allowed.join(', '))
    const error =
      allowed === undefined
        ? nothingHere()
        : new OAuthError('method_not_allowed', 'this address does not accept the method')
    const forPerson = request.headers.accept?.includes('text/html') === true
    return forPerson ? sendErrorPage(error, request, reply) : answerError(context, error, request, reply)
  })
  return server
}

const notFound: RouteHandlerMethod = async () => {
  throw nothingHere()
}

function nothingHere(): OAuthError {
  return new OAuthError('not_found', 'there is nothing at this address')
}

/** A program looks at a page's address before it sends a person there (mcp-remote does). */
function wantsJson({ headers }: FastifyRequest): boolean {
  return headers.accept?.includes('application/json') === true && !headers.accept.includes('text/html')
}

/** Bodies are forms, and nothing else. */
async function acceptForms(server: FastifyInstance): Promise<void> {
  server.removeAllContentTypeParsers()
  await server.register(formbody, { bodyLimit: BODY_LIMIT })
}

/** Answers what isn't HTTP, or has headers that are too long, before there is a request. */
function answerBrokenHttp(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed || !socket.writable) return
  const status = error.code === 'HPE_HEADER_OVERFLOW' ? '431 Request Header Fields Too Large' : '400 Bad Request'
  const body = JSON.stringify({ error: 'invalid_request', error_description: 'the request is malformed' })
  socket.end(
    `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`,
  )
}
