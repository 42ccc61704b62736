import * as z from 'zod'
import type { Context } from '../context.ts'
import { freshSeconds } from '../protocol/cache-control.ts'
import { isAssertionKey, type PublicJwk } from '../protocol/client-assertion.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { findKeySet, noteKeySetFailure, saveKeySet } from '../store/key-set.ts'
import { createCoalescer } from './coalesce.ts'
import { FetchError } from './fetch-json.ts'
import { countFetch } from './network-limit.ts'
import { publicKeySchema } from './public-key.ts'

const MOST_BYTES = 64 * 1024
const MOST_KEYS = 50

/** Of the keys at an address, those that are kept: room enough for two generations of every kind. */
const MOST_KEPT = 10

/** How long a fetched set is used: so long after a key was withdrawn its signatures may still count. */
const CACHED_SECONDS = { least: 300, most: 3600, fallback: 300 }

/** Neither an unknown key nor a failure makes us ask again before this time is over. */
const PAUSE_SECONDS = 30

const namedKey = publicKeySchema.and(
  z.object({
    kid: z.string().max(256).optional(),
    alg: z.string().max(64).optional(),
    use: z.string().max(64).optional(),
    key_ops: z.array(z.string().max(64)).max(10).optional(),
  }),
)

/**
 * A key set (RFC 7517 §5), as its usable public keys: types and curves that aren't known here are left out, as §5
 * demands, and so are keys that have been given away.
 */
export const keySetSchema = z.object({ keys: z.array(z.looseObject({})).max(MOST_KEYS) }).transform(({ keys }) =>
  keys.flatMap((key): PublicJwk[] => {
    const read = namedKey.safeParse(key)
    return read.success ? [read.data] : []
  }),
)

const fetchOnce = createCoalescer<PublicJwk[]>()

/**
 * The keys at a `jwks_uri`, of which at least one is good for the asker. They are kept in Postgres, so that
 * replicas agree, and fetched again when they are too old or none is good: then the client may have a new one.
 *
 * @param network that the asker comes from
 * @param choose picks the good ones
 * @throws {OAuthError} `temporarily_unavailable` when it can't be known: a fault in the network, or of a server
 *   that isn't the asker's, says nothing about the asker
 */
export async function findKeys(
  context: Context,
  uri: string,
  network: string,
  choose: (keys: PublicJwk[]) => PublicJwk[],
): Promise<PublicJwk[]> {
  const stored = await findKeySet(context.db, uri, PAUSE_SECONDS)
  const chosen = stored?.keys == null ? [] : choose(stored.keys)
  if (chosen.length > 0 || stored?.fetchedLately) return chosen
  if (stored?.failedLately) throw unavailable('key_set_unavailable')
  const work = async () => {
    const newer = await findKeySet(context.db, uri, PAUSE_SECONDS)
    return newer?.fetchedLately && newer.keys !== null ? newer.keys : fetchKeys(context, uri) // somebody was quicker
  }
  return choose(await fetchOnce(context, uri, work, () => countFetch(context, network, uri)))
}

async function fetchKeys(context: Context, uri: string): Promise<PublicJwk[]> {
  try {
    const { value, headers } = await context.fetchJson(uri, MOST_BYTES)
    const read = keySetSchema.safeParse(value)
    if (!read.success) throw new FetchError('not_a_key_set', false)
    const keys = read.data.filter(isAssertionKey).slice(0, MOST_KEPT)
    await saveKeySet(context.db, uri, keys, freshSeconds(headers, CACHED_SECONDS))
    return keys
  } catch (error) {
    if (!(error instanceof FetchError)) throw error
    await noteKeySetFailure(context.db, uri, PAUSE_SECONDS)
    context.log.warn({ event: 'key_set_fetch_failed', uri, reason: error.reason }, 'a key set could not be fetched')
    throw unavailable(`key_set_${error.reason}`)
  }
}

function unavailable(reason: string): OAuthError {
  return new OAuthError('temporarily_unavailable', 'the keys of this client can not be fetched right now', reason, {
    retryAfterSeconds: PAUSE_SECONDS,
  })
}
