import { Resolver } from 'node:dns/promises'
import { isIP } from 'node:net'
import type { Agent } from 'undici'
import { OAuthError } from '../protocol/oauth-error.ts'
import { isLoopbackAddress, isPublicAddress } from './public-address.ts'

const CONNECT_SECONDS = 3
/** For everything from the look-up of the name to the last byte, so that a slow drip ends, too. */
const WHOLE_SECONDS = 6
const LONGEST_HEADERS = 16 * 1024 // bytes

/** Fetches under way in this process; each may take WHOLE_SECONDS of memory and sockets. */
const MOST_AT_ONCE = 20

/** Of these from one host: one that answers slowly leaves room for all others. */
const MOST_AT_ONCE_FROM_HOST = 5

/** Codes of look-ups whose answer is that there is nothing, or can't be. Any other says nothing about the name. */
const NOTHING_THERE: ReadonlySet<string> = new Set(['ENOTFOUND', 'ENODATA', 'EBADNAME'])

/** Why nothing usable was fetched. */
export class FetchError extends Error {
  override readonly name = 'FetchError'
  /** stable word for the log; nobody outside is told more than whether it may pass */
  readonly reason: string
  /** whether the same fetch may work later: nothing is said about the document */
  readonly passing: boolean

  constructor(reason: string, passing: boolean) {
    super(reason)
    this.reason = reason
    this.passing = passing
  }
}

export interface FetchedJson {
  value: unknown
  /** names in lower case */
  headers: Record<string, string | undefined>
}

/**
 * Fetches a JSON document of at most so many bytes.
 *
 * @throws {FetchError}
 * @throws {OAuthError} `temporarily_unavailable` when too much is being fetched already, from all hosts or from this
 *   one: no fault of this document
 */
export type FetchJson = (url: string, mostBytes: number) => Promise<FetchedJson>

/** What a fetch takes from its surroundings; tests bring their own. */
export interface Network {
  /** all addresses of a name; given up when the signal says so */
  resolve(name: string, signal: AbortSignal): Promise<string[]>
  /** where the addresses that were checked are reached; left out: there */
  route?(addresses: string[], port: number): { addresses: string[]; port: number }
  /** who is trusted to vouch for servers; left out: whom the system trusts */
  certificateAuthority?: string
  /** for how long a fetch may take; left out: WHOLE_SECONDS */
  seconds?: number
}

const SYSTEM: Network = { resolve: askNameServers }

/**
 * Asks the name servers (c-ares). Not getaddrinfo: that takes one of the process's few threads until the name
 * server of a stranger answers, and everything else that needs them waits, connections to Postgres among it.
 */
async function askNameServers(name: string, signal: AbortSignal): Promise<string[]> {
  if (name === 'localhost') return ['127.0.0.1', '::1'] // RFC 6761 §6.3: no name server is asked
  const resolver = new Resolver({ timeout: 2000, tries: 2 })
  const cancel = () => resolver.cancel()
  signal.addEventListener('abort', cancel, { once: true })
  try {
    const answers = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)])
    const addresses = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []))
    if (addresses.length > 0) return addresses
    const errors = answers.flatMap((answer) => (answer.status === 'rejected' ? [answer.reason] : []))
    throw errors.find((error) => !isNothingThere(error)) ?? errors[0]
  } finally {
    signal.removeEventListener('abort', cancel)
  }
}

function isNothingThere(error: unknown): boolean {
  return NOTHING_THERE.has(String((error as { code?: unknown } | undefined)?.code))
}

/**
 * Makes the one function that fetches from addresses that strangers name: metadata documents and key sets.
 *
 * It can't be sent to what only this machine can reach (SSRF): a name is looked up once, every address that it
 * has must be public, and the connection goes to exactly those, so a second answer of the name server (rebinding)
 * is never asked for. TLS demands the name. No redirects, no proxy, no cookies, no credentials, no compression;
 * limits of time and size hold while the answer comes in.
 *
 * @param allowLoopback for development: loopback counts as public, and http is allowed there
 */
export function createFetchJson(allowLoopback: boolean, network: Network = SYSTEM): FetchJson {
  const hostsUnderWay: string[] = []
  const fetchJson: FetchJson = async (text, mostBytes) => {
    const url = new URL(text)
    const tooLate = AbortSignal.timeout((network.seconds ?? WHOLE_SECONDS) * 1000)
    const addresses = await beforeDeadline(resolve(network, url, tooLate), tooLate)
    const isAllowed = (address: string) => isPublicAddress(address) || (allowLoopback && isLoopbackAddress(address))
    if (addresses.length === 0 || !addresses.every(isAllowed)) throw new FetchError('address_refused', false)
    if (url.protocol !== 'https:' && !(url.protocol === 'http:' && addresses.every(isLoopbackAddress))) {
      throw new FetchError('scheme_refused', false)
    }
    let agent: Agent | undefined
    try {
      agent = await pinnedAgent(addresses, url, network)
      return await get(url, agent, mostBytes, tooLate)
    } catch (error) {
      if (error instanceof FetchError) throw error
      throw new FetchError(tooLate.aborted ? 'timeout' : 'connection_failed', true)
    } finally {
      agent?.destroy().catch(() => {})
    }
  }
  return async (text, mostBytes) => {
    const host = new URL(text).hostname
    const fromHost = hostsUnderWay.filter((other) => other === host).length
    if (hostsUnderWay.length >= MOST_AT_ONCE || fromHost >= MOST_AT_ONCE_FROM_HOST) {
      const options = { retryAfterSeconds: 5 }
      throw new OAuthError('temporarily_unavailable', 'too much is being fetched right now', 'fetches_busy', options)
    }
    hostsUnderWay.push(host)
    try {
      return await fetchJson(text, mostBytes)
    } finally {
      hostsUnderWay.splice(hostsUnderWay.indexOf(host), 1)
    }
  }
}

async function resolve(network: Network, url: URL, signal: AbortSignal): Promise<string[]> {
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1')
  if (isIP(host) !== 0) return [host]
  try {
    return await network.resolve(host, signal)
  } catch (error) {
    // outside, a name that isn't there looks like one whose address is refused: else names inside could be found out
    throw new FetchError('name_not_resolved', !isNothingThere(error))
  }
}

/** Loaded for the first fetch: it is large, and many servers never fetch anything. */
const undici = () => import('undici')

/** Connects to the given addresses, whatever the name resolves to by then; for one fetch alone. */
async function pinnedAgent(addresses: string[], url: URL, network: Network): Promise<Agent> {
  const { Agent, buildConnector } = await undici()
  const port = Number(url.port || (url.protocol === 'https:' ? 443 : 80))
  const target = network.route?.(addresses, port) ?? { addresses, port }
  const pinned = target.addresses.map((address) => ({ address, family: isIP(address) }))
  const connect = buildConnector({
    timeout: CONNECT_SECONDS * 1000,
    maxCachedSessions: 0,
    autoSelectFamily: true,
    lookup: (_name, options, callback) => {
      const [first] = pinned
      if (options.all) callback(null, pinned)
      else callback(null, first?.address ?? '', first?.family)
    },
    ...(network.certificateAuthority === undefined ? {} : { ca: network.certificateAuthority }),
  })
  return new Agent({
    connect: (options, callback) => connect({ ...options, port: String(target.port) }, callback),
    connections: 1,
    pipelining: 0,
    maxHeaderSize: LONGEST_HEADERS,
    headersTimeout: WHOLE_SECONDS * 1000,
    bodyTimeout: WHOLE_SECONDS * 1000,
  })
}

async function get(url: URL, dispatcher: Agent, mostBytes: number, signal: AbortSignal): Promise<FetchedJson> {
  const headers = { accept: 'application/json', 'accept-encoding': 'identity', 'user-agent': 'Postern' }
  const { request } = await undici()
  const response = await request(url, { method: 'GET', headers, dispatcher, signal })
  response.body.on('error', () => {}) // what is destroyed early may still complain
  const fail = (reason: string, passing = false): never => {
    response.body.destroy()
    throw new FetchError(reason, passing)
  }
  const { statusCode } = response
  if (statusCode !== 200) fail('status_not_200', statusCode >= 500 || statusCode === 429 || statusCode === 408)
  const received = firstValues(response.headers)
  if (!isJson(received['content-type'])) fail('media_type_not_json')
  if ((received['content-encoding'] ?? 'identity') !== 'identity') fail('content_encoded')
  if (Number(received['content-length'] ?? 0) > mostBytes) fail('too_large')
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of response.body as AsyncIterable<Buffer>) {
    length += chunk.length
    if (length > mostBytes) fail('too_large')
    chunks.push(chunk)
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks))
    return { value: JSON.parse(text), headers: received }
  } catch {
    return fail('not_json')
  }
}

function firstValues(headers: Record<string, string | string[] | undefined>): Record<string, string | undefined> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), [value].flat()[0]]))
}

/** application/json, or any type that is JSON by its suffix (RFC 6838 §4.2.8). */
function isJson(contentType: string | undefined): boolean {
  return /^application\/([a-z0-9!#$&^_.-]+\+)?json\s*(;|$)/i.test(contentType ?? '')
}

/** Nobody waits for a look-up any longer than the whole may take. */
async function beforeDeadline<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return await new Promise<T>((settle, reject) => {
    signal.addEventListener('abort', () => reject(new FetchError('timeout', true)), { once: true })
    work.then(settle, reject)
  })
}
