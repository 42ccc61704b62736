import type { Context } from '../context.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { usernameKey } from '../protocol/username.ts'
import type { UserRow } from '../store/database.ts'
import { insertKnownBrowser, isKnownBrowser } from '../store/known-browser.ts'
import { insertSession, removeSession, type SessionOrigin } from '../store/session.ts'
import { countAttempts, forgetAttempts, uncountAttempt } from '../store/throttle.ts'
import { findUser } from '../store/user.ts'
import { credentialHash, hashSecret, issueCredential } from '../tokens/secret.ts'

/** Failed attempts in a window: for one account from unknown browsers, and for one network. */
const ATTEMPTS_PER_ACCOUNT = 10
const ATTEMPTS_PER_NETWORK = 100
const WINDOW_SECONDS = 900

/** A browser counts as known for as long as people keep the habit of using it. */
export const KNOWN_BROWSER_SECONDS = 365 * 86_400

export interface SignInAttempt {
  username: string
  password: string
  /** the network that the attempt comes from */
  network: string
  origin: SessionOrigin
  /** the known-browser credential that the browser sent */
  knownBrowser: string | undefined
}

export type SignInResult =
  | { outcome: 'signed-in'; userId: string; sessionId: string; newKnownBrowser: string | undefined }
  | { outcome: 'refused' }
  | { outcome: 'throttled'; retryAfterSeconds: number }

/**
 * Signs a person in: throttle, password, session.
 *
 * An attempt is counted before the password is looked at, for its network and its account. A browser from which
 * the person has signed in before has a count of its own instead, so that strangers, who guess at an account or share
 * its network, never lock its owner out. Nothing tells whether the account exists: names are counted by their
 * hash, and a missing user costs the same computation.
 */
export async function signIn(context: Context, attempt: SignInAttempt): Promise<SignInResult> {
  const { db } = context
  const key = usernameKey(attempt.username)
  const browserHash = credentialHash('knownBrowser', attempt.knownBrowser ?? '')
  const known = key !== undefined && browserHash !== undefined && (await isKnownBrowser(db, browserHash, key))
  const limits: Limit[] = known
    ? [{ key: throttleKey('browser', browserHash.toString('hex')), most: ATTEMPTS_PER_ACCOUNT }]
    : [
        { key: throttleKey('network', attempt.network), most: ATTEMPTS_PER_NETWORK },
        { key: throttleKey('account', key ?? ''), most: ATTEMPTS_PER_ACCOUNT },
      ]
  for (const limit of limits) {
    const [counted] = await countAttempts(db, [limit.key], WINDOW_SECONDS)
    if (counted !== undefined && counted.attempts > limit.most) {
      return { outcome: 'throttled', retryAfterSeconds: Math.max(1, counted.secondsLeft) }
    }
  }
  const user = key === undefined ? undefined : await findUser(db, key)
  const right = await verify(context, user, attempt.password, limits)
  const session = right && user !== undefined ? await openSession(context, user, attempt.origin) : undefined
  if (user === undefined || session === undefined) return { outcome: 'refused' }

  for (const { key, most } of limits) {
    if (most === ATTEMPTS_PER_ACCOUNT) await forgetAttempts(db, key)
    else await uncountAttempt(db, key)
  }
  if (known) return { outcome: 'signed-in', userId: user.id, sessionId: session, newKnownBrowser: undefined }
  const newKnownBrowser = issueCredential('knownBrowser')
  await insertKnownBrowser(db, hashSecret(newKnownBrowser), user.id, KNOWN_BROWSER_SECONDS)
  return { outcome: 'signed-in', userId: user.id, sessionId: session, newKnownBrowser }
}

/** A count that an attempt adds to, and how high it may get in a window. */
interface Limit {
  key: Buffer
  most: number
}

/** Verifies the password; an attempt that couldn't be looked at, because too many are waiting, doesn't count. */
async function verify(
  context: Context,
  user: UserRow | undefined,
  password: string,
  limits: Limit[],
): Promise<boolean> {
  try {
    return await context.passwords.verify(user?.password_hash, password)
  } catch (error) {
    for (const { key } of limits) await uncountAttempt(context.db, key)
    throw error
  }
}

/** @throws {OAuthError} where people sign in with identity providers alone */
export function demandPasswordSignIn({ passwordSignIn }: Context['config']): void {
  if (passwordSignIn) return
  throw new OAuthError('access_denied', 'passwords are not used here', 'password_sign_in_off', { status: 403 })
}

/**
 * Opens a session for a person who has proven who they are.
 *
 * @returns the session id, for a cookie alone; `undefined` when the user has been disabled, or the password
 *   changed, since it was looked at
 */
export async function openSession(
  { db, config }: Context,
  user: Pick<UserRow, 'id' | 'password_hash'>,
  origin: SessionOrigin,
): Promise<string | undefined> {
  const sessionId = issueCredential('session')
  return (await insertSession(db, hashSecret(sessionId), user, config.sessionSeconds, origin)) ? sessionId : undefined
}

/** Ends the session of a browser, if it has one. */
export async function signOut(context: Context, sessionId: string | undefined): Promise<void> {
  const idHash = sessionId === undefined ? undefined : credentialHash('session', sessionId)
  if (idHash !== undefined) await removeSession(context.db, idHash)
}

function throttleKey(kind: 'account' | 'browser' | 'network', value: string): Buffer {
  return hashSecret(`${kind} ${value}`)
}
