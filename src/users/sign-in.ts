import type { Context } from '../context.ts'
import { usernameKey } from '../protocol/username.ts'
import { insertKnownBrowser, isKnownBrowser } from '../store/known-browser.ts'
import { insertSession, removeSession } from '../store/session.ts'
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
 * An attempt is counted before the password is looked at, for its account and for its network. A browser
 * from which the person has signed in before has a count of its own, so that strangers who guess at an
 * account never lock its owner out. Nothing tells whether the account exists: names are counted by their
 * hash, and a missing user costs the same computation.
 */
export async function signIn(context: Context, attempt: SignInAttempt): Promise<SignInResult> {
  const { db } = context
  const key = usernameKey(attempt.username)
  const browserHash =
    attempt.knownBrowser === undefined ? undefined : credentialHash('knownBrowser', attempt.knownBrowser)
  const known = key !== undefined && browserHash !== undefined && (await isKnownBrowser(db, browserHash, key))
  const accountKey =
    known && browserHash ? throttleKey('browser', browserHash.toString('hex')) : throttleKey('account', key ?? '')
  const networkKey = throttleKey('network', attempt.network)

  const counted = await countAttempts(db, [accountKey, networkKey].sort(Buffer.compare), WINDOW_SECONDS)
  const exceeded = counted.filter(
    ({ key, attempts }) => attempts > (key.equals(accountKey) ? ATTEMPTS_PER_ACCOUNT : ATTEMPTS_PER_NETWORK),
  )
  if (exceeded.length > 0) {
    return { outcome: 'throttled', retryAfterSeconds: Math.max(1, ...exceeded.map(({ secondsLeft }) => secondsLeft)) }
  }

  const user = key === undefined ? undefined : await findUser(db, key)
  const right = await context.passwords.verify(user?.password_hash, attempt.password)
  if (!right || user === undefined || user.disabled_at !== null) return { outcome: 'refused' }

  await forgetAttempts(db, accountKey)
  await uncountAttempt(db, networkKey)
  const sessionId = await openSession(context, user.id)
  if (known) return { outcome: 'signed-in', userId: user.id, sessionId, newKnownBrowser: undefined }
  const newKnownBrowser = issueCredential('knownBrowser')
  await insertKnownBrowser(db, hashSecret(newKnownBrowser), user.id, KNOWN_BROWSER_SECONDS)
  return { outcome: 'signed-in', userId: user.id, sessionId, newKnownBrowser }
}

/** Opens a session for a person who has proven who they are. @returns the session id, for a cookie alone */
export async function openSession({ db, config }: Context, userId: string): Promise<string> {
  const sessionId = issueCredential('session')
  await insertSession(db, hashSecret(sessionId), userId, config.sessionSeconds)
  return sessionId
}

/** Ends the session of a browser, if it has one. */
export async function signOut(context: Context, sessionId: string | undefined): Promise<void> {
  const idHash = sessionId === undefined ? undefined : credentialHash('session', sessionId)
  if (idHash !== undefined) await removeSession(context.db, idHash)
}

function throttleKey(kind: 'account' | 'browser' | 'network', value: string): Buffer {
  return hashSecret(`${kind} ${value}`)
}
