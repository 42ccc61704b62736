import type { Context } from '../context.ts'
import { passwordProblem } from '../protocol/username.ts'
import { countAttempts, forgetAttempts } from '../store/throttle.ts'
import { findUserById, setUserPassword } from '../store/user.ts'
import { hashSecret } from '../tokens/secret.ts'

/** Wrong current passwords in a window: a browser that was left open must not be a way to guess. */
const ATTEMPTS = 10
const WINDOW_SECONDS = 900

export type ChangePasswordResult =
  | { outcome: 'changed'; passwordHash: string }
  | { outcome: 'throttled'; retryAfterSeconds: number }
  | { outcome: 'wrong' }
  /** `problem` is a sentence about the new one */
  | { outcome: 'refused'; problem: string }

/** Changes a person's own password; all sessions end, and the caller opens a new one. */
export async function changePassword(
  context: Context,
  userId: string,
  passwords: { current: string; next: string },
): Promise<ChangePasswordResult> {
  const problem = passwordProblem(passwords.next)
  if (problem !== undefined) return { outcome: 'refused', problem }
  const key = hashSecret(`password change ${userId}`)
  const [counted] = await countAttempts(context.db, [key], WINDOW_SECONDS)
  if (counted !== undefined && counted.attempts > ATTEMPTS) {
    return { outcome: 'throttled', retryAfterSeconds: Math.max(1, counted.secondsLeft) }
  }
  const user = await findUserById(context.db, userId)
  const before = user?.password_hash ?? null
  if (user === undefined || before === null || !(await context.passwords.verify(before, passwords.current))) {
    return { outcome: 'wrong' }
  }
  const passwordHash = await context.passwords.hash(passwords.next)
  if (!(await setUserPassword(context.db, user.username_key, passwordHash, before))) return { outcome: 'wrong' }
  await forgetAttempts(context.db, key)
  context.log.info({ event: 'password_changed', user_id: userId }, 'password changed')
  return { outcome: 'changed', passwordHash }
}
