import type { Context } from '../context.ts'
import type { OAuthError } from '../protocol/oauth-error.ts'
import { createCoalescer } from './coalesce.ts'
import { countForNetwork } from './network-limit.ts'

/** Far more than people behind one address need, since what was fetched is kept; few enough to make no flood. */
const FETCHES_PER_NETWORK = 60 // in a minute

const countOnce = createCoalescer<void>()

/** Whether an error is about this server and who asks it, and says nothing about what should have been fetched. */
export function isOwnLimit(error: OAuthError): boolean {
  return ['fetches_exceeded', 'fetches_busy'].includes(error.reason)
}

/**
 * Counts a fetch that a network makes us do, before it is done; once for all who ask for it at the same time.
 *
 * @throws {OAuthError} `temporarily_unavailable` (429) when there were too many
 */
export async function countFetch(context: Context, network: string, url: string): Promise<void> {
  return countOnce(context, `${network} ${url}`, () => count(context, network))
}

async function count(context: Context, network: string): Promise<void> {
  await countForNetwork(context, network, {
    counted: 'fetch',
    most: FETCHES_PER_NETWORK,
    message: 'too many documents had to be fetched',
    reason: 'fetches_exceeded',
  })
}
