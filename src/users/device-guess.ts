import type { Context } from '../context.ts'
import { countAttempts } from '../store/throttle.ts'
import { hashSecret } from '../tokens/secret.ts'

/** User codes that a person may try in a window: with 34 bits, nobody guesses one that is waiting (RFC 8628 §5.1). */
const GUESSES = 20
const WINDOW_SECONDS = 900

/**
 * Counts a try at a user code.
 *
 * @returns seconds to wait when there were too many; `undefined` when it may be looked up
 */
export async function admitDeviceGuess({ db }: Context, userId: string): Promise<number | undefined> {
  const [counted] = await countAttempts(db, [hashSecret(`user code ${userId}`)], WINDOW_SECONDS)
  return counted !== undefined && counted.attempts > GUESSES ? counted.secondsLeft : undefined
}
