import { setTimeout as delay } from 'node:timers/promises'

/** Asks again and again until there is an answer; an error counts as none. @throws when there is none in time */
export async function until<T>(
  ask: () => Promise<T | undefined | false> | T | undefined | false,
  seconds = 10,
): Promise<T> {
  const tooLate = AbortSignal.timeout(seconds * 1000)
  for (;;) {
    try {
      const answer = await ask()
      if (answer) return answer
    } catch (error) {
      if (tooLate.aborted) throw error
    }
    if (tooLate.aborted) throw new Error(`it did not happen within ${seconds} seconds`)
    await delay(10)
  }
}
