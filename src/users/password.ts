import { availableParallelism } from 'node:os'
import { performance } from 'node:perf_hooks'
import { setTimeout } from 'node:timers/promises'
import argon2 from 'argon2'
import pLimit from 'p-limit'
import { OAuthError } from '../protocol/oauth-error.ts'
import { randomSecret } from '../tokens/secret.ts'

/** OWASP's parameters for argon2id: 19 MiB, two passes, one lane. */
const PARAMETERS = { type: argon2.argon2id, memoryCost: 19_456, timeCost: 2, parallelism: 1 } as const

/** Of the four threads that Node.js has for such work by default, one stays free for files and name resolution. */
const MOST_AT_ONCE = Math.min(availableParallelism(), 3)

/**
 * From this share of its time on, the event loop is busy, and passwords leave it room: without, 50 people who signed in at
 * once took more than half of the rate of introspection.
 */
const BUSY = 0.5

/** While the event loop is busy, a computation is followed by a rest so many times as long … */
const REST = 2.5

/** … but not by a longer one: those who wait in the queue are people. */
const LONGEST_REST_MILLISECONDS = 250

/** More than this many waiting sign-ins would wait longer than people do. */
const LONGEST_QUEUE = 100

/** Hashes and verifies passwords of people. */
export interface PasswordHasher {
  /** @returns an argon2id hash in PHC format */
  hash(password: string): Promise<string>
  /**
   * Verifies a password. Without a hash (no such user) it takes as long, and says no.
   *
   * @throws {OAuthError} `temporarily_unavailable` when too many are waiting
   */
  verify(passwordHash: string | null | undefined, password: string): Promise<boolean>
}

/**
 * Makes a hasher that runs few computations at once, with rests between them while the server has much else to do, so
 * that a wave of sign-ins takes neither all threads nor the processor from the token endpoint.
 */
export function createPasswordHasher(): PasswordHasher {
  const limit = pLimit(MOST_AT_ONCE)
  const inTurn = <T>(task: () => Promise<T>): Promise<T> => {
    if (limit.pendingCount >= LONGEST_QUEUE) {
      const options = { retryAfterSeconds: 5 }
      throw new OAuthError('temporarily_unavailable', 'too many people are signing in', 'password_queue_full', options)
    }
    return new Promise((resolve, reject) => {
      limit(async () => {
        const before = performance.eventLoopUtilization()
        const startedAt = performance.now()
        await task().then(resolve, reject)
        const took = performance.now() - startedAt
        if (performance.eventLoopUtilization(before).utilization <= BUSY) return
        await setTimeout(Math.min(took * REST, LONGEST_REST_MILLISECONDS))
      }).catch(reject)
    })
  }
  const nobodysHash = argon2.hash(randomSecret(), PARAMETERS)
  nobodysHash.catch(() => {}) // whoever needs it is told
  return {
    hash: async (password) => inTurn(() => argon2.hash(normalise(password), PARAMETERS)),
    verify: async (passwordHash, password) => {
      const right = await inTurn(async () => argon2.verify(passwordHash ?? (await nobodysHash), normalise(password)))
      return right && typeof passwordHash === 'string'
    },
  }
}

/** The same password typed on another keyboard has the same characters (NIST SP 800-63B §3.1.1.2). */
function normalise(password: string): string {
  return password.normalize('NFKC')
}
