import { createHmac } from 'node:crypto'
import * as client from 'openid-client'
import type { Context } from '../context.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import {
  displayNameOf,
  isProviderId,
  isSubject,
  judgePerson,
  mergeClaims,
  type PersonClaims,
  promptFor,
  usernameCandidates,
  verifiedEmail,
} from '../protocol/upstream.ts'
import { usernameKey } from '../protocol/username.ts'
import type { IdentityProviderRow, UserRow } from '../store/database.ts'
import { findIdentityProvider } from '../store/identity-provider.ts'
import { removeSetupLinks } from '../store/setup-link.ts'
import {
  linkUpstreamAccount,
  lockUpstreamIdentity,
  lockUsername,
  type UpstreamIdentity,
  useUpstreamAccount,
} from '../store/upstream-account.ts'
import { insertUpstreamSignIn, takeUpstreamSignIn, type UpstreamSignIn } from '../store/upstream-sign-in.ts'
import { findUser, insertUser } from '../store/user.ts'
import { hashSecret, randomId, randomSecret } from '../tokens/secret.ts'
import { callbackUri, connectProvider, withProvider } from './identity-provider.ts'
import { keepUpstreamTokens } from './upstream-token.ts'

/** Characters of where a browser goes on to: it is stored for whoever asks. */
const LONGEST_CONTINUE_QUERY = 8192

/** Of the last resort among usernames. */
const SUFFIX_BYTES = 8

/** How long a person may take at the provider. */
const SIGN_IN_SECONDS = 900

/** A browser that goes to a provider. */
export interface UpstreamDeparture extends Omit<UpstreamSignIn, 'providerId'> {
  /** a secret of the browser's, in a cookie: state, verifier and nonce are bound to it */
  browserSecret: string
  /** what the client demanded of the sign-in (OpenID Connect Core §3.1.2.1), as far as it concerns the provider */
  prompt: string | undefined
}

/** The provider that people may sign in with now. @throws {OAuthError} when there is none of this id */
export async function demandOpenProvider({ db }: Context, id: string): Promise<IdentityProviderRow> {
  const provider = isProviderId(id) ? await findIdentityProvider(db, id) : undefined
  if (provider !== undefined && provider.disabled_at === null) return provider
  throw new OAuthError('not_found', 'there is nothing at this address')
}

/**
 * Begins a sign-in at a provider (OpenID Connect Core §3.1.2.1, RFC 7636).
 *
 * @returns where the browser goes
 * @throws {OAuthError} when the provider can't be used, or where to go on to is too long
 */
export async function beginUpstreamSignIn(
  context: Context,
  provider: IdentityProviderRow,
  departure: UpstreamDeparture,
): Promise<URL> {
  const { browserSecret, linkUserId, continueQuery, prompt } = departure
  if (continueQuery.length > LONGEST_CONTINUE_QUERY) {
    throw new OAuthError('invalid_request', 'the request is too long to be kept meanwhile', 'request_too_long')
  }
  const configuration = await connectProvider(context, provider, true)
  const state = randomSecret().toString('base64url')
  const secrets = secretsOf(state, browserSecret)
  const parameters = {
    ...provider.authorization_parameters,
    redirect_uri: callbackUri(context.config, provider.id),
    scope: provider.scope.join(' '),
    state,
    code_challenge: await client.calculatePKCECodeChallenge(secrets.codeVerifier),
    code_challenge_method: 'S256',
    ...(provider.kind === 'openid_connect' ? { nonce: secrets.nonce } : {}),
    ...promptOf(provider, configuration, prompt),
  }
  const address = await withProvider(context.log, provider.id, async () =>
    client.buildAuthorizationUrl(configuration, parameters),
  )
  const signIn = { providerId: provider.id, linkUserId, continueQuery }
  await insertUpstreamSignIn(context.db, secrets.key, signIn, SIGN_IN_SECONDS)
  return address
}

/** What the provider is to ask the person: what the client demands, beside what the operator does. */
function promptOf(provider: IdentityProviderRow, configuration: client.Configuration, demanded: string | undefined) {
  const own = provider.authorization_parameters.prompt?.split(' ') ?? []
  const supported = configuration.serverMetadata().prompt_values_supported
  const words = new Set([...own, ...promptFor(provider.issuer, supported, demanded)])
  return words.size === 0 ? {} : { prompt: [...words].join(' ') }
}

/** A browser that comes back from a provider. */
export interface UpstreamReturn {
  browserSecret: string
  /** the query that the provider answered with, as it was sent */
  query: string
  /** who is signed in, in this browser */
  userId: string | undefined
}

/** What came of a sign-in. */
export type UpstreamResult =
  | { outcome: 'proven'; user: UserRow }
  | { outcome: 'denied' }
  | { outcome: 'refused'; reason: RefusedReason }

export type RefusedReason =
  | 'domain_not_allowed'
  | 'claim_missing'
  | 'account_unknown'
  | 'user_disabled'
  | 'another_account_linked'

/** What came of linking. */
export type LinkResult = 'linked' | 'linked-elsewhere' | 'not-linked'

/**
 * Takes up the sign-in that a browser began, once.
 *
 * @throws {OAuthError} `access_denied` with the reason `upstream_state_unknown` when this browser began no such one
 */
export async function resumeUpstreamSignIn(
  { db }: Context,
  provider: IdentityProviderRow,
  { browserSecret, query }: UpstreamReturn,
): Promise<UpstreamSignIn> {
  const signIn = await takeUpstreamSignIn(db, secretsOf(stateOf(query), browserSecret).key)
  if (signIn?.providerId === provider.id) return signIn
  const message = 'this browser began no such sign-in'
  throw new OAuthError('access_denied', message, 'upstream_state_unknown', { status: 403 })
}

/**
 * Ends a sign-in at a provider: verifies what it says, and finds, links or creates the user.
 *
 * @throws {OAuthError} when what the provider says can't be had or believed (`withProvider`)
 */
export async function finishUpstreamSignIn(
  context: Context,
  provider: IdentityProviderRow,
  returned: UpstreamReturn,
): Promise<UpstreamResult> {
  const answer = await askWho(context, provider, returned)
  if (answer === 'denied') return { outcome: 'denied' }
  const verdict = judgePerson(provider, answer.claims)
  if (verdict !== 'allowed') return { outcome: 'refused', reason: verdict }
  const found = await findPerson(context, provider, identityOf(provider, answer), answer.claims)
  if (typeof found === 'string') return { outcome: 'refused', reason: found }
  if (found.disabled_at !== null) return { outcome: 'refused', reason: 'user_disabled' }
  await keepTokens(context, provider, found.id, answer)
  return { outcome: 'proven', user: found }
}

/**
 * Links the account that the person has shown at a provider, if the one who asked for it is still signed in.
 *
 * @throws {OAuthError} when what the provider says can't be had or believed (`withProvider`)
 */
export async function finishUpstreamLink(
  context: Context,
  provider: IdentityProviderRow,
  linkUserId: string,
  returned: UpstreamReturn,
): Promise<LinkResult> {
  const { db, log } = context
  const facts = { user_id: linkUserId, provider: provider.id }
  const refuse = (result: LinkResult, outcome: string): LinkResult => {
    log.info({ event: 'account_not_linked', ...facts, outcome }, 'account not linked')
    return result
  }
  const answer = await askWho(context, provider, returned)
  if (answer === 'denied') return refuse('not-linked', answer)
  const verdict = judgePerson(provider, answer.claims)
  if (verdict !== 'allowed') return refuse('not-linked', verdict)
  if (returned.userId !== linkUserId) return refuse('not-linked', 'signed_out_meanwhile')
  const identity = identityOf(provider, answer)
  const linked = await linkUpstreamAccount(db, linkUserId, identity)
  const owner = await useUpstreamAccount(db, identity)
  if (owner?.id !== linkUserId) return refuse('linked-elsewhere', 'account_linked_elsewhere')
  if (linked) log.info({ event: 'account_linked', ...facts, by: 'person' }, 'account linked')
  await keepTokens(context, provider, linkUserId, answer)
  return 'linked'
}

function identityOf(provider: IdentityProviderRow, { claims, subject }: Answer): UpstreamIdentity {
  return { providerId: provider.id, subject, displayName: displayNameOf(provider, claims, subject) }
}

async function keepTokens(
  context: Context,
  { id: providerId, keeps_tokens: keeps }: IdentityProviderRow,
  userId: string,
  { tokens }: Answer,
): Promise<void> {
  if (keeps) await keepUpstreamTokens(context, { userId, providerId }, tokens)
}

interface Answer {
  subject: string
  claims: PersonClaims
  tokens: client.TokenEndpointResponse
}

/**
 * Redeems the provider's code, and verifies who it says that the person is (OpenID Connect Core §3.1.3.7).
 *
 * @returns `denied` when the person didn't want to
 */
async function askWho(
  context: Context,
  provider: IdentityProviderRow,
  { query, browserSecret }: UpstreamReturn,
): Promise<Answer | 'denied'> {
  const state = stateOf(query)
  const { codeVerifier, nonce } = secretsOf(state, browserSecret)
  const configuration = await connectProvider(context, provider)
  const address = new URL(`${callbackUri(context.config, provider.id)}?${query}`)
  const isOpenIdConnect = provider.kind === 'openid_connect'
  return withProvider(context.log, provider.id, async () => {
    const checks = { pkceCodeVerifier: codeVerifier, expectedState: state }
    const expected = isOpenIdConnect ? { expectedNonce: nonce, idTokenExpected: true } : {}
    const tokens = await client
      .authorizationCodeGrant(configuration, address, { ...checks, ...expected })
      .catch((error: unknown) => {
        if (error instanceof client.AuthorizationResponseError && error.error === 'access_denied') return undefined
        throw error
      })
    if (tokens === undefined) return 'denied'
    if (!isOpenIdConnect) return { tokens, ...(await askGitHub(configuration, tokens.access_token)) }
    const stated = tokens.claims() as PersonClaims & { sub: string }
    const userinfo =
      configuration.serverMetadata().userinfo_endpoint === undefined
        ? {}
        : await client.fetchUserInfo(configuration, tokens.access_token, stated.sub)
    if (!isSubject(stated.sub)) throw new Error('the provider gave a subject that can not be one')
    return { tokens, subject: stated.sub, claims: mergeClaims(stated, userinfo) }
  })
}

/** GitHub's own way to say who somebody is: its API, in the shape of claims. */
async function askGitHub(configuration: client.Configuration, accessToken: string) {
  const { issuer } = configuration.serverMetadata()
  const api = issuer === 'https://github.com' ? 'https://api.github.com' : `${issuer}/api/v3`
  const ask = async (path: string): Promise<unknown> => {
    const headers = new Headers({ accept: 'application/vnd.github+json', 'user-agent': 'Postern' })
    const response = await client.fetchProtectedResource(
      configuration,
      accessToken,
      new URL(`${api}${path}`),
      'GET',
      null,
      headers,
    )
    if (response.status !== 200) throw new Error(`GitHub answered ${response.status} at ${path}`, { cause: response })
    return response.json()
  }
  const user = (await ask('/user')) as { id?: unknown; login?: unknown; name?: unknown }
  if (typeof user.id !== 'number') throw new Error('GitHub did not say who the person is')
  const addresses = (await ask('/user/emails')) as { email?: unknown; primary?: unknown; verified?: unknown }[]
  const primary = addresses.find((address) => address.primary === true)
  const claims: PersonClaims = {
    preferred_username: user.login,
    name: user.name,
    email: primary?.email,
    email_verified: primary?.verified,
  }
  return { subject: String(user.id), claims }
}

/** Finds who is linked to the account; otherwise links the person with this address, or creates one, as policy allows. */
async function findPerson(
  { db, log }: Context,
  provider: IdentityProviderRow,
  identity: UpstreamIdentity,
  claims: PersonClaims,
): Promise<UserRow | RefusedReason> {
  const known = await useUpstreamAccount(db, identity)
  if (known !== undefined) return known
  return db.transaction().execute(async (trx) => {
    await lockUpstreamIdentity(trx, identity)
    const first = await useUpstreamAccount(trx, identity)
    if (first !== undefined) return first // another sign-in of the same person was faster
    const email = provider.trusts_email ? verifiedEmail(claims) : undefined
    const key = email === undefined ? undefined : usernameKey(email)
    if (key !== undefined) await lockUsername(trx, key) // always after the other lock, so that nobody waits in a circle
    const namesake = key === undefined ? undefined : await findUser(trx, key)
    if (namesake !== undefined) {
      if (namesake.disabled_at !== null) return 'user_disabled'
      if (!(await linkUpstreamAccount(trx, namesake.id, identity))) return 'another_account_linked'
      log.info({ event: 'account_linked', user_id: namesake.id, provider: provider.id, by: 'email' }, 'account linked')
      return namesake
    }
    if (!provider.creates_users) return 'account_unknown'
    const suffix = randomSecret(SUFFIX_BYTES).toString('hex')
    for (const username of usernameCandidates(provider, claims, identity.subject, suffix)) {
      const user = {
        id: randomId(),
        username,
        usernameKey: usernameKey(username) as string,
        passwordHash: null,
        isAdministrator: false,
      }
      if (!(await insertUser(trx, user))) continue
      await linkUpstreamAccount(trx, user.id, identity)
      await removeSetupLinks(trx) // there is a user now
      log.info({ event: 'user_created', user_id: user.id, provider: provider.id }, 'user created')
      return (await findUser(trx, user.usernameKey)) as UserRow
    }
    return 'account_unknown'
  })
}

function stateOf(query: string): string {
  return new URLSearchParams(query).get('state') ?? ''
}

interface Secrets {
  key: { stateHash: Buffer; browserHash: Buffer }
  codeVerifier: string
  nonce: string
}

/** Verifier and nonce come from the state and the browser's secret, so that nothing secret has to be stored. */
function secretsOf(state: string, browserSecret: string): Secrets {
  const derive = (use: string) => createHmac('sha256', browserSecret).update(`${use} ${state}`).digest('base64url')
  return {
    key: { stateHash: hashSecret(state), browserHash: hashSecret(derive('browser')) },
    codeVerifier: derive('code_verifier'),
    nonce: derive('nonce'),
  }
}
