import { setTimeout as delay } from 'node:timers/promises'
import * as client from 'openid-client'
import { createCoalescer } from '../clients/coalesce.ts'
import type { Context } from '../context.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { isDatabaseUnavailable } from '../store/database.ts'
import { findIdentityProvider } from '../store/identity-provider.ts'
import {
  endUpstreamTokens,
  findUpstreamTokens,
  leaseUpstreamRefresh,
  type RefreshLease,
  releaseUpstreamRefresh,
  type StoredUpstreamTokens,
  storeRefreshedTokens,
  storeUpstreamTokens,
  type UpstreamTokenKey,
} from '../store/upstream-token.ts'
import { EncryptionKeyError } from '../tokens/encryption.ts'
import { randomId } from '../tokens/secret.ts'
import { openUpstreamToken, sealUpstreamTokens, type UpstreamTokens } from '../tokens/upstream-token.ts'
import { connectProvider, withProvider } from './identity-provider.ts'

/** An access token that is handed out holds for at least this long, or else for half of its time. */
const LEAST_SECONDS = 60
/** How old an access token may be whose provider doesn't say how long it holds. */
const UNKNOWN_LIFETIME_SECONDS = 300
/** How long one replica may refresh: longer than a provider may take for two answers, and storing what it gave. */
const LEASE_SECONDS = 60
/** How often, and how many times, a request looks whether another replica has refreshed. */
const WAIT_SECONDS = 0.1
const WAITS = 120
/** How many times, a second apart, storing is tried: a rotated refresh token that isn't stored is lost. */
const STORE_ATTEMPTS = 5

/** An access token of a provider. */
export interface UpstreamAccess {
  accessToken: string
  /** whole seconds; `undefined` when the provider doesn't say */
  expiresInSeconds: number | undefined
  scope: string | undefined
}

const refreshOnce = createCoalescer<UpstreamAccess>()

/** Keeps what a provider issued at a sign-in. Without an encryption key nothing is kept, and an operator has to act. */
export async function keepUpstreamTokens(
  { config, db, log }: Context,
  key: UpstreamTokenKey,
  tokens: UpstreamTokens,
): Promise<void> {
  try {
    await storeUpstreamTokens(db, sealUpstreamTokens(config, key, tokens))
  } catch (error) {
    if (!(error instanceof EncryptionKeyError)) throw error
    log.error({ event: 'upstream_tokens_not_kept', provider: key.providerId, user_id: key.userId }, error.message)
  }
}

/**
 * An access token of a person at a provider, as good as new: the one that is stored, or else a refreshed one. One
 * refresh at a time per person and provider, in this process and across replicas, and what it gives is stored before
 * anybody gets it. No connection to the database is held meanwhile.
 *
 * @throws {OAuthError} `invalid_target` when the person has to sign in at the provider again;
 *   `temporarily_unavailable` when the provider can't be used, or takes too long, or no key opens what is stored
 */
export async function freshUpstreamToken(context: Context, key: UpstreamTokenKey): Promise<UpstreamAccess> {
  try {
    const stored = await demandTokens(context, key)
    if (isFresh(stored)) return open(context, key, stored)
    return await refreshOnce(context, `${key.providerId} ${key.userId}`, () => refresh(context, key, stored.version))
  } catch (error) {
    if (!(error instanceof EncryptionKeyError)) throw error
    const facts = { event: 'sealed_with_unknown_key', provider: key.providerId, user_id: key.userId }
    context.log.error(facts, error.message)
    const options = { retryAfterSeconds: 60 }
    throw new OAuthError('temporarily_unavailable', 'try again later', 'upstream_tokens_unopenable', options)
  }
}

/** Refreshes, or waits for another replica that does; what was stored since `version` is fresh. */
async function refresh(context: Context, key: UpstreamTokenKey, version: string): Promise<UpstreamAccess> {
  for (let waits = 0; waits < WAITS; waits += 1) {
    const stored = await demandTokens(context, key)
    if (stored.version !== version) return open(context, key, stored)
    if (!stored.leased) {
      const lease = { ...key, id: randomId() }
      const sealed = await leaseUpstreamRefresh(context.db, lease, version, LEASE_SECONDS)
      if (sealed !== undefined) await refreshWithLease(context, lease, sealed)
    } else {
      await delay(WAIT_SECONDS * 1000)
    }
  }
  const options = { retryAfterSeconds: 5 }
  throw new OAuthError('temporarily_unavailable', 'try again', 'upstream_refresh_slow', options)
}

/** Refreshes (RFC 6749 §6), and stores what came of it, unless the person has signed in again meanwhile. */
async function refreshWithLease(context: Context, lease: RefreshLease, sealedRefreshToken: Buffer): Promise<void> {
  const { config, db, log } = context
  const facts = { provider: lease.providerId, user_id: lease.userId }
  let refreshToken: string
  let tokens: client.TokenEndpointResponse | undefined
  try {
    refreshToken = openUpstreamToken(config, lease, 'refresh_token', sealedRefreshToken)
    tokens = await askForTokens(context, lease.providerId, refreshToken)
  } catch (error) {
    await releaseUpstreamRefresh(db, lease).catch(() => {}) // it ends by itself
    throw error
  }
  if (tokens === undefined) {
    const ended = await persistently(() => endUpstreamTokens(db, lease))
    if (ended) log.warn({ event: 'upstream_tokens_ended', ...facts }, 'identity provider refused the refresh token')
    return
  }
  const sealed = sealUpstreamTokens(config, lease, { refresh_token: refreshToken, ...tokens })
  const stored = await persistently(() => storeRefreshedTokens(db, lease, sealed))
  log.info({ event: 'upstream_tokens_refreshed', ...facts, stored }, 'upstream tokens refreshed')
}

/** @returns `undefined` when the provider refuses the refresh token for good */
async function askForTokens(
  context: Context,
  providerId: string,
  refreshToken: string,
): Promise<client.TokenEndpointResponse | undefined> {
  const provider = await findIdentityProvider(context.db, providerId)
  if (provider === undefined) throw signInNeeded('upstream_tokens_missing') // removed, and its tokens with it
  const configuration = await connectProvider(context, provider)
  return withProvider(context.log, providerId, () =>
    client.refreshTokenGrant(configuration, refreshToken).catch((error: unknown) => {
      if (isRefusal(error)) return undefined
      throw error
    }),
  )
}

/** GitHub refuses with status 200 and a word of its own. */
function isRefusal(error: unknown): boolean {
  if (error instanceof client.ResponseBodyError) return error.error === 'invalid_grant'
  const { cause } = error as { cause?: { body?: { error?: unknown } } }
  return cause?.body?.error === 'bad_refresh_token'
}

/** @throws {OAuthError} `invalid_target` when there are none that hold, or can be refreshed */
async function demandTokens({ db }: Context, key: UpstreamTokenKey): Promise<StoredUpstreamTokens> {
  const stored = await findUpstreamTokens(db, key)
  if (stored === undefined) throw signInNeeded('upstream_tokens_ended')
  if (!stored.canRefresh && stored.secondsLeft !== null && stored.secondsLeft <= 0) {
    throw signInNeeded('upstream_tokens_expired')
  }
  return stored
}

/** Without a refresh token, what is stored has to do while it holds. */
function isFresh({ canRefresh, secondsLeft, ageSeconds }: StoredUpstreamTokens): boolean {
  if (!canRefresh) return true
  return secondsLeft === null
    ? ageSeconds < UNKNOWN_LIFETIME_SECONDS
    : secondsLeft >= Math.min(LEAST_SECONDS, ageSeconds)
}

function open({ config }: Context, key: UpstreamTokenKey, stored: StoredUpstreamTokens): UpstreamAccess {
  return {
    accessToken: openUpstreamToken(config, key, 'access_token', stored.accessToken),
    expiresInSeconds: stored.secondsLeft === null ? undefined : Math.max(0, stored.secondsLeft),
    scope: stored.scope ?? undefined,
  }
}

function signInNeeded(reason: string): OAuthError {
  return new OAuthError('invalid_target', 'the person has to sign in at the identity provider again', reason)
}

/** Tries again while the database is away. */
async function persistently<T>(store: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await store()
    } catch (error) {
      if (attempt >= STORE_ATTEMPTS || !isDatabaseUnavailable(error)) throw error
      await delay(1000)
    }
  }
}
