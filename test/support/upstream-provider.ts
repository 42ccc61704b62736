import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http'
import { text } from 'node:stream/consumers'
import { decodeJwt, decodeProtectedHeader, exportJWK, generateKeyPair, SignJWT } from 'jose'
import type { Provider } from 'oidc-provider'
import type { Test } from 'tap'
import { insertIdentityProvider, type NewIdentityProvider } from '../../src/store/identity-provider.ts'
import { callbackUri, sealClientSecret } from '../../src/users/identity-provider.ts'
import { basic } from './credentials.ts'
import { post } from './flow.ts'
import { identityProvider } from './identity-provider.ts'
import { Person } from './person.ts'
import { freePort, type TestPostern } from './postern.ts'

/** What a provider knows of a person (OpenID Connect Core §5.1), but for `sub`. */
export type AccountClaims = Record<string, unknown>

/** A company's identity provider: node-oidc-provider, unmodified, on a port of loopback. */
export interface UpstreamProvider {
  issuer: string
  /** a second address of the same provider, for servers */
  internalOrigin: string
  clientId: string
  clientSecret: string
  /** by subject */
  accounts: Map<string, AccountClaims>
  /** lifetime of the next access tokens */
  accessTokenSeconds: number
  /** requests at the token endpoint, by grant_type, also those that failed */
  tokenRequests: Map<string, number>
  /** the addresses that were asked for, in order, without their queries */
  arrivals: string[]
  /** the query of each authorization request */
  authorizationRequests: URLSearchParams[]
  /** claims that the next ID tokens state wrongly, signed with the right key; the real one never does that */
  wrongClaims: Record<string, unknown>
  /** what the next answers at a path state wrongly, or leave out (`undefined`); the real one never does that */
  wrongAnswers: Record<string, Record<string, unknown>>
  /** paths at which it fails */
  failing: Set<string>
  /** the next ID tokens are signed with a key that isn't the provider's */
  signsWithForeignKey: boolean
  /** refuses all tokens that it has issued, as when an administrator ends somebody's sessions there */
  forgetGrants(): Promise<void>
  /** is away, until `start` */
  stop(): Promise<void>
  start(): Promise<void>
}

/** Claims that the provider tells by the scope that asks for them. */
const CLAIMS = {
  openid: ['sub'],
  email: ['email', 'email_verified'],
  profile: ['name', 'preferred_username', 'groups'],
}

/** Starts a provider at which one client is registered. Refresh tokens rotate; PKCE is demanded. */
export async function startUpstreamProvider(
  t: Test,
  { redirectUris, accounts = {} }: { redirectUris: string[]; accounts?: Record<string, AccountClaims> },
): Promise<UpstreamProvider> {
  const [port, internalPort] = [await freePort(), await freePort()]
  const issuer = `http://localhost:${port}`
  const { privateKey } = await generateKeyPair('RS256', { extractable: true })
  const grantIds: string[] = []
  const upstream: UpstreamProvider = {
    issuer,
    internalOrigin: `http://127.0.0.1:${internalPort}`,
    clientId: 'postern',
    clientSecret: randomBytes(24).toString('base64url'),
    accounts: new Map(Object.entries(accounts)),
    accessTokenSeconds: 3600,
    tokenRequests: new Map(),
    arrivals: [],
    authorizationRequests: [],
    wrongClaims: {},
    wrongAnswers: {},
    failing: new Set(),
    signsWithForeignKey: false,
    forgetGrants: async () => {
      for (const id of grantIds.splice(0)) await (await provider.Grant.find(id))?.destroy()
    },
    start: async () => {
      if (servers.length > 0) return
      servers = await Promise.all([listen(port, handle), listen(internalPort, handle)])
    },
    stop: async () => {
      await Promise.all(servers.splice(0).map(close))
    },
  }
  const provider = await createProvider(issuer, {
    clients: [
      {
        client_id: upstream.clientId,
        client_secret: upstream.clientSecret,
        redirect_uris: redirectUris,
        grant_types: ['authorization_code', 'refresh_token'],
      },
    ],
    jwks: { keys: [{ ...(await exportJWK(privateKey)), use: 'sig', alg: 'RS256' }] },
    cookies: { keys: [randomBytes(16).toString('hex')] },
    claims: CLAIMS,
    pkce: { required: () => true },
    rotateRefreshToken: true,
    ttl: {
      AccessToken: () => upstream.accessTokenSeconds,
      AuthorizationCode: 60,
      Grant: 86_400,
      IdToken: 3600,
      Interaction: 600,
      RefreshToken: 86_400,
      Session: 86_400,
    },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_: unknown, { uid }: { uid: string }) => `/interaction/${uid}` },
    findAccount: (_: unknown, sub: string) =>
      upstream.accounts.has(sub)
        ? { accountId: sub, claims: () => ({ ...upstream.accounts.get(sub), sub }) }
        : undefined,
  })
  provider.use(async (ctx, next) => {
    await next()
    const wrong = upstream.wrongAnswers[ctx.path]
    if (wrong !== undefined) ctx.body = { ...(ctx.body as Record<string, unknown>), ...wrong }
    if (ctx.path !== '/token') return
    const grantType = String(ctx.oidc?.params?.grant_type)
    upstream.tokenRequests.set(grantType, (upstream.tokenRequests.get(grantType) ?? 0) + 1)
    const body = ctx.body as { id_token?: string }
    const { wrongClaims, signsWithForeignKey } = upstream
    if (body.id_token === undefined || (Object.keys(wrongClaims).length === 0 && !signsWithForeignKey)) return
    const key = signsWithForeignKey ? (await generateKeyPair('RS256')).privateKey : privateKey
    const header = decodeProtectedHeader(body.id_token) as { alg: string }
    const claims = { ...decodeJwt(body.id_token), ...wrongClaims }
    ctx.body = { ...body, id_token: await new SignJWT(claims).setProtectedHeader(header).sign(key) }
  })
  const answer = provider.callback()
  const handle: RequestListener = (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '/', issuer)
    upstream.arrivals.push(`http://${request.headers.host}${pathname}`)
    if (pathname === '/auth') upstream.authorizationRequests.push(searchParams)
    request.headers.host = new URL(issuer).host // it knows its public name, by whichever it is called
    if (upstream.failing.has(pathname)) return void response.writeHead(500).end()
    if (!pathname.startsWith('/interaction/')) return void answer(request, response)
    interact(provider, upstream, request, response).then(
      (grantId) => grantId !== undefined && grantIds.push(grantId),
      (error) => response.writeHead(500).end(String(error)),
    )
  }
  let servers: Server[] = []
  await upstream.start()
  t.teardown(() => upstream.stop())
  return upstream
}

/** The provider's page: asks who the person is, and whether Postern may know. */
async function interact(
  provider: Provider,
  { accounts }: UpstreamProvider,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<string | undefined> {
  const { params, session } = await provider.interactionDetails(request, response)
  const finish = (result: Record<string, unknown>) =>
    provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false })
  if (request.method !== 'POST') {
    const known = session?.accountId ?? [...accounts.keys()][0] ?? ''
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(PAGE(known))
    return undefined
  }
  const form = new URLSearchParams(await text(request))
  if (form.get('decision') !== 'allow') {
    await finish({ error: 'access_denied', error_description: 'the person said no' })
    return undefined
  }
  const accountId = form.get('account') ?? ''
  const grant = new provider.Grant({ accountId, clientId: params.client_id })
  grant.addOIDCScope(params.scope ?? '')
  const grantId = await grant.save()
  await finish({ login: { accountId }, consent: { grantId } })
  return grantId
}

const PAGE = (account: string) => `<!doctype html>
<html lang="en">
<title>Company sign-in</title>
<link rel="icon" href="data:,">
<main><h1>Company sign-in</h1>
<form method="post">
<label>Account <input name="account" value="${account}" autofocus></label>
<button name="decision" value="allow">Continue</button>
<button name="decision" value="deny">Cancel</button>
</form></main>
</html>`

/** Adds the provider to Postern as an operator does, with what differs from a cautious one. */
export async function addUpstream(
  postern: TestPostern,
  upstream: UpstreamProvider,
  changes: Partial<NewIdentityProvider> = {},
): Promise<string> {
  const id = changes.id ?? 'company'
  const { sealed, sealedWith } = sealClientSecret(postern.context.config, id, upstream.clientSecret)
  const keepsTokens = changes.keeps_tokens ?? false
  const provider = identityProvider({
    issuer: upstream.issuer,
    client_id: upstream.clientId,
    client_secret: sealed,
    sealed_with: sealedWith,
    scope: ['openid', 'email', 'profile', ...(keepsTokens ? ['offline_access'] : [])],
    authorization_parameters: keepsTokens ? { prompt: 'consent' } : {}, // OpenID Connect Core §11
    ...changes,
  })
  const added = await insertIdentityProvider(postern.db, provider)
  if (!added) throw new Error(`${id} was added before`)
  return id
}

/** A provider that Postern knows as `company`. */
export async function connectUpstream(
  t: Test,
  postern: TestPostern,
  accounts: Record<string, AccountClaims>,
  changes: Partial<NewIdentityProvider> = {},
): Promise<UpstreamProvider> {
  const redirectUris = [callbackUri(postern.context.config, changes.id ?? 'company')]
  const upstream = await startUpstreamProvider(t, { redirectUris, accounts })
  await addUpstream(postern, upstream, changes)
  return upstream
}

/** Presses the button of the provider on the sign-in page. @returns where the browser is sent */
export async function departTo(person: Person, signInPage: string, id: string = 'company'): Promise<string> {
  const html = await (await person.request(signInPage)).text()
  return locationOf(await person.submit({ address: signInPage, html }, `/login/${id}`, {}))
}

/** Goes through the provider's pages. @returns the address at Postern to which the provider sends the browser back */
export async function passProvider(
  person: Person,
  address: string,
  { account, decision = 'allow' }: { account: string; decision?: 'allow' | 'deny' },
): Promise<string> {
  const { origin } = new URL(address)
  let next = address
  for (let step = 0; step < 8; step += 1) {
    const response = await person.request(next)
    const body = new URLSearchParams({ account, decision })
    const answer = response.status === 200 ? await person.request(next, { method: 'POST', body }) : response
    next = new URL(locationOf(answer), next).href
    if (new URL(next).origin !== origin) return next
  }
  throw new Error('the provider did not answer after eight steps')
}

/** A whole sign-in with the provider. @returns Postern's answer to the browser that came back */
export async function signInUpstream(
  { issuer }: Pick<TestPostern, 'issuer'>,
  {
    account,
    person = new Person(),
    page = `${issuer}/login`,
    id = 'company',
  }: { account: string; person?: Person; page?: string; id?: string },
): Promise<Response> {
  return person.request(await passProvider(person, await departTo(person, page, id), { account }))
}

export const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
export const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'

/** Exchanges an access token for one of the provider, as a resource server does (RFC 8693 §2.1). */
export async function exchangeToken(
  at: TestPostern,
  subjectToken: string,
  fields: Record<string, string | undefined> = {},
  as: { id: string; secret: string } = at.resourceServer,
) {
  const form = { grant_type: EXCHANGE, subject_token: subjectToken, subject_token_type: ACCESS_TOKEN, ...fields }
  return post(at, '/token', form, { authorization: basic(as.id, as.secret) })
}

/** Lets the provider's access tokens expire, as far as Postern knows. */
export async function expireUpstream({ db }: TestPostern): Promise<void> {
  await db
    .updateTable('upstream_token')
    .set({ expires_at: new Date(0) })
    .execute()
}

/** How often the provider was asked to refresh. */
export function refreshesOf({ tokenRequests }: UpstreamProvider): number {
  return tokenRequests.get('refresh_token') ?? 0
}

/** Who the provider says that a token is for, or the status with which it refuses the token. */
export async function userinfo({ issuer }: UpstreamProvider, token: unknown): Promise<string | number> {
  const response = await fetch(`${issuer}/me`, { headers: { authorization: `Bearer ${token}` } })
  return response.status === 200 ? ((await response.json()) as { sub: string }).sub : response.status
}

/** Where an answer sends the browser. */
export function locationOf(response: Response): string {
  const location = response.headers.get('location')
  if (location === null) throw new Error(`${response.url} answered ${response.status}, and sent the browser nowhere`)
  return location
}

/** Creates the provider, without its advice for those who run one. */
async function createProvider(issuer: string, configuration: Record<string, unknown>): Promise<Provider> {
  const { warn, info } = console
  Object.assign(console, { warn: () => {}, info: () => {} })
  try {
    const { Provider } = await import('oidc-provider')
    return new Provider(issuer, configuration)
  } finally {
    Object.assign(console, { warn, info })
  }
}

async function listen(port: number, handle: RequestListener): Promise<Server> {
  const server = createServer(handle).listen(port, '127.0.0.1')
  await once(server, 'listening')
  return server
}

async function close(server: Server): Promise<void> {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
}
