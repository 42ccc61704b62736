import type { Context } from '../context.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { countAttempts } from '../store/throttle.ts'
import { hashSecret } from '../tokens/secret.ts'
import { createCoalescer } from './coalesce.ts'

const WINDOW_SECONDS = 60

/** Rows that an endpoint keeps for a network in a minute: ample for many people behind one address. */
const KEPT_PER_NETWORK = 600

/** Far more than people behind one address need, since what was fetched is kept; few enough to make no flood. */
const FETCHES_PER_NETWORK = 60 // in a minute

/**
 * Counts a request that makes us keep a row, which anybody may send where registration is open.
 *
 * @throws {OAuthError} `temporarily_unavailable` (429) when there were too many
 */
export async function countKept(context: Context, network: string, endpoint: `/${string}`): Promise<void> {
  const message = 'too many requests came from this network'
  await countForNetwork(context, network, {
    counted: endpoint,
    most: KEPT_PER_NETWORK,
    message,
    reason: 'kept_exceeded',
  })
}

const countOnce = createCoalescer<void>()

/**
 * Counts a fetch that a network makes us do, before it is done; once for all who ask for it at the same time.
 *
 * @throws {OAuthError} `temporarily_unavailable` (429) when there were too many
 */
export async function countFetch(context: Context, network: string, url: string): Promise<void> {
  const limit = {
    counted: 'fetch',
    most: FETCHES_PER_NETWORK,
    message: 'too many documents had to be fetched',
    reason: 'fetches_exceeded',
  }
  return countOnce(context, `${network} ${url}`, () => countForNetwork(context, network, limit))
}

/** Whether an error is about this server and who asks it, and says nothing about what should have been fetched. */
export function isOwnLimit(error: OAuthError): boolean {
  return ['fetches_exceeded', 'fetches_busy'].includes(error.reason)
}

/** What a network may make us do only so often. */
interface NetworkLimit {
  /** what is counted: each thing by itself */
  counted: string
  /** times in a minute */
  most: number
  /** for the client, and for the log */
  message: string
  reason: string
}

/**
 * Counts what a network makes us do, before it is done.
 *
 * @throws {OAuthError} `temporarily_unavailable` (429) when it was too often
 */
async function countForNetwork({ db }: Context, network: string, limit: NetworkLimit): Promise<void> {
  const [counted] = await countAttempts(db, [hashSecret(`${limit.counted} ${network}`)], WINDOW_SECONDS)
  if (counted === undefined || counted.attempts <= limit.most) return
  throw new OAuthError('temporarily_unavailable', limit.message, limit.reason, {
    status: 429,
    retryAfterSeconds: Math.max(1, counted.secondsLeft),
  })
}
