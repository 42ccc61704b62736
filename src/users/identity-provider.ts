import * as client from 'openid-client'
import type { Context } from '../context.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import type { IdentityProviderRow } from '../store/database.ts'
import { type EncryptionKeys, openText, type SealedText, sealText } from '../tokens/encryption.ts'

/** How long a provider may take for one answer. */
const TIMEOUT_SECONDS = 10

/** What a provider says of itself is believed for this long; its keys are looked after by openid-client. */
const DISCOVERED_SECONDS = 600

/** For this long it counts as new: strangers who send browsers to a provider don't make us ask it each time. */
const NEW_SECONDS = 10

interface Discovered {
  /** of the row that it was discovered with */
  settings: string
  isNew: boolean
  configuration: Promise<client.Configuration>
  timers: NodeJS.Timeout[]
}

const discovered = new WeakMap<Context['db'], Map<string, Discovered>>()

/**
 * Connects to a provider: discovers it (OpenID Connect Discovery §4), at most once in ten minutes. What goes wrong is
 * forgotten at once.
 *
 * @param anew asks the provider unless it has answered just now, before a browser is sent to one that is away
 * @throws {OAuthError} `temporarily_unavailable` with the reason `provider_unavailable`, or `provider_unusable`
 */
export async function connectProvider(
  context: Pick<Context, 'config' | 'db' | 'log'>,
  provider: IdentityProviderRow,
  anew: boolean = false,
): Promise<client.Configuration> {
  const providers = discovered.get(context.db) ?? new Map<string, Discovered>()
  discovered.set(context.db, providers)
  const settings = JSON.stringify(provider)
  const known = providers.get(provider.id)
  if (known?.settings === settings && (!anew || known.isNew)) return known.configuration
  if (known !== undefined) stop(known.timers) // they hold what is replaced
  const configuration = withProvider(context.log, provider.id, () => discover(context.config, provider))
  const entry: Discovered = { settings, configuration, isNew: true, timers: [] }
  providers.set(provider.id, entry)
  const forget = () => {
    stop(entry.timers)
    if (providers.get(provider.id) === entry) providers.delete(provider.id)
  }
  const age = () => {
    entry.isNew = false
  }
  entry.timers = [after(NEW_SECONDS, age), after(DISCOVERED_SECONDS, forget)]
  configuration.catch(forget)
  return configuration
}

/** Does something later, if the process still runs. */
function after(seconds: number, act: () => void): NodeJS.Timeout {
  return setTimeout(act, seconds * 1000).unref()
}

/** Where a provider is, for browsers and for the server. */
type Place = Pick<IdentityProviderRow, 'issuer' | 'internal_origin'>

/** Whether the server may ask at an address that the provider names: plain http only where the operator has said so. */
export function isSafeAddress({ issuer, internal_origin: internal }: Place, { protocol, origin }: URL): boolean {
  return protocol === 'https:' || (protocol === 'http:' && [new URL(issuer).origin, internal].includes(origin))
}

/** Where the server asks, instead of at an address that the provider names: inside, where there is such an origin. */
export function serverAddress({ issuer, internal_origin: internal }: Place, url: string): string {
  const { origin, pathname, search } = new URL(url)
  return internal !== null && origin === new URL(issuer).origin ? `${internal}${pathname}${search}` : url
}

/** Whether the provider takes the secret in the body; silence means HTTP Basic (OpenID Connect Discovery §3). */
export function takesPost(metadata: { token_endpoint_auth_methods_supported?: unknown }): boolean {
  const methods = metadata.token_endpoint_auth_methods_supported
  return Array.isArray(methods) && methods.includes('client_secret_post')
}

function stop(timers: NodeJS.Timeout[]): void {
  for (const timer of timers) clearTimeout(timer)
}

/** Where the provider sends the browser back to; it has to be registered there. */
export function callbackUri(config: { issuer: string }, providerId: string): string {
  return `${config.issuer}/login/${providerId}/callback`
}

/** Seals the secret that a provider gave us. */
export function sealClientSecret(keys: EncryptionKeys, providerId: string, secret: string): SealedText {
  return sealText(keys, secretOf(providerId), secret)
}

/** Opens the secret that a provider gave us. @throws {EncryptionKeyError} */
export function openClientSecret(keys: EncryptionKeys, providerId: string, sealed: Buffer): string {
  return openText(keys, secretOf(providerId), sealed)
}

/**
 * Asks something of a provider, and tells whose fault it is when that fails. A refusal that is to be expected, `ask`
 * takes itself.
 *
 * @throws {OAuthError} `temporarily_unavailable`: `provider_unavailable` when it may work later, `provider_unusable`
 *   when what it says is wrong, or our settings are
 */
export async function withProvider<T>(log: Context['log'], providerId: string, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (error) {
    const reason = isUnavailable(error) ? 'provider_unavailable' : 'provider_unusable'
    // names alone: the cause may hold what the provider sent, and so tokens
    const { message, error: refusal, code, cause } = error as Failure
    const names = { error: refusal, error_code: code ?? cause?.code, claim: cause?.claim }
    log.warn({ event: reason, provider: providerId, ...names, detail: message }, 'identity provider failed')
    const options = { retryAfterSeconds: 10 }
    throw new OAuthError('temporarily_unavailable', 'the identity provider can not be used right now', reason, options)
  }
}

/** What openid-client throws; `error` is the provider's word for it (RFC 6749 §5.2). */
interface Failure extends Error {
  error?: string
  code?: string
  cause?: { claim?: unknown; code?: unknown }
}

const PASSING: ReadonlySet<string> = new Set(['temporarily_unavailable', 'server_error'])

function isUnavailable(error: unknown): boolean {
  if (error instanceof client.AuthorizationResponseError) return PASSING.has(error.error)
  if (error instanceof client.ResponseBodyError) return isPassingStatus(error.status)
  if (!(error instanceof Error)) return false
  const { code, cause } = error as Error & { code?: string; cause?: unknown }
  if (code === 'OAUTH_TIMEOUT' || code === 'OAUTH_ABORT') return true
  if (cause instanceof Response) return isPassingStatus(cause.status)
  return error.name === 'TimeoutError' || (error instanceof TypeError && error.message === 'fetch failed')
}

function isPassingStatus(status: number): boolean {
  return status >= 500 || status === 429
}

async function discover(config: Context['config'], provider: IdentityProviderRow): Promise<client.Configuration> {
  const { client_secret: sealed } = provider
  const secret = sealed === null ? undefined : openClientSecret(config, provider.id, sealed)
  const authentication = secret === undefined ? client.None() : authenticateWith(secret)
  const insecure = isPlainHttp(provider) ? [client.allowInsecureRequests] : []
  const execute = [client.enableNonRepudiationChecks, ...insecure] // signatures count: the way may be plain http
  const options = { execute, timeout: TIMEOUT_SECONDS, [client.customFetch]: fetchOf(provider) }
  if (provider.kind === 'openid_connect') {
    return client.discovery(new URL(provider.issuer), provider.client_id, secret, authentication, options)
  }
  // GitHub has no discovery, and no ID tokens
  const configuration = new client.Configuration(
    {
      issuer: provider.issuer,
      authorization_endpoint: `${provider.issuer}/login/oauth/authorize`,
      token_endpoint: `${provider.issuer}/login/oauth/access_token`,
    },
    provider.client_id,
    secret,
    secret === undefined ? authentication : client.ClientSecretPost(secret),
  )
  for (const apply of insecure) apply(configuration)
  configuration.timeout = TIMEOUT_SECONDS
  configuration[client.customFetch] = options[client.customFetch]
  return configuration
}

/** Sends the secret as the provider says that it takes it. */
function authenticateWith(secret: string): client.ClientAuth {
  return (provider, ...parameters) => {
    const authenticate = takesPost(provider) ? client.ClientSecretPost(secret) : client.ClientSecretBasic(secret)
    return authenticate(provider, ...parameters)
  }
}

/**
 * Requests of the server go to the internal address, where there is one; browsers go to the public one. Who the person
 * is matters at a sign-in alone: an ID token of a refresh that can't be verified must not cost the tokens beside it,
 * since the provider has ended the ones before.
 */
function fetchOf(provider: Place): client.CustomFetch {
  return async (url, options) => {
    if (!isSafeAddress(provider, new URL(url))) throw new Error('the provider names an address that is not https')
    const response = await fetch(serverAddress(provider, url), options as RequestInit)
    return isRefresh(options.body) && response.status === 200 ? withoutIdToken(response) : response
  }
}

function isRefresh(body: unknown): boolean {
  return body instanceof URLSearchParams && body.get('grant_type') === 'refresh_token'
}

async function withoutIdToken(response: Response): Promise<Response> {
  return new Response(withoutMember(await response.text(), 'id_token'), { headers: response.headers })
}

/** A JSON object without one of its members; any other text stays as it is. */
function withoutMember(text: string, name: string): string {
  try {
    return JSON.stringify(JSON.parse(text), (key, value) => (key === name ? undefined : value))
  } catch {
    return text
  }
}

/** On loopback, or inside of a network of containers. */
function isPlainHttp({ issuer, internal_origin: internal }: IdentityProviderRow): boolean {
  return issuer.startsWith('http:') || internal?.startsWith('http:') === true
}

function secretOf(providerId: string): string {
  return `identity_provider ${providerId}`
}
