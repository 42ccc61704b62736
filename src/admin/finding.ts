/** One thing that was looked at. */
export interface Finding {
  check: string
  ok: boolean
  detail: string
  /** what to do; `null` when there is nothing to do */
  advice: string | null
}

/** A check that found nothing wrong. */
export function good(check: string, detail: string): Finding {
  return { check, ok: true, detail, advice: null }
}

/** A check that found something wrong, and the way out. */
export function bad(check: string, detail: string, advice: string): Finding {
  return { check, ok: false, detail, advice }
}

/** How long a client would wait at most. */
const TIMEOUT_SECONDS = 5

/** What a server answered. */
export interface Visited {
  status: number
  headers: Headers
  /** the JSON object of an answer with status 200, if it is one */
  document: Record<string, unknown> | undefined
  /** the word of an OAuth error (RFC 6749 §5.2) */
  error: string | undefined
}

/** Asks a server as a client does, without following redirects. @returns in words why there is no answer */
export async function visit(url: string, init: RequestInit = {}): Promise<Visited | string> {
  try {
    const answer = await fetch(url, {
      headers: { accept: 'application/json' },
      ...init,
      redirect: 'manual',
      signal: AbortSignal.timeout(TIMEOUT_SECONDS * 1000),
    })
    const isJson = /^application\/([\w.-]+\+)?json\b/i.test(answer.headers.get('content-type') ?? '')
    const body = isJson ? readObject(await answer.text()) : undefined
    if (!isJson) await answer.body?.cancel() // it may be an endless stream
    const error = typeof body?.error === 'string' ? body.error : undefined
    return { status: answer.status, headers: answer.headers, document: answer.status === 200 ? body : undefined, error }
  } catch (error) {
    return reasonOf(error)
  }
}

/** An answer that isn't the one that was wanted, in words that go on after its URL. */
export function describeAnswer({ status, headers }: Visited): string {
  if (status === 200)
    return `doesn't answer with a JSON object (${headers.get('content-type') ?? 'without content-type'})`
  const location = headers.get('location')
  return `answers ${status}${location === null ? '' : ` to ${location}`}`
}

/** Two texts that had to be the same, byte for byte. */
export function difference(found: unknown, expected: string): string {
  const both = `${JSON.stringify(found) ?? 'nothing'}, not ${JSON.stringify(expected)}`
  const bySlash = typeof found === 'string' && (found === `${expected}/` || expected === `${found}/`)
  return bySlash ? `${both}: they differ by the slash at the end` : both
}

function readObject(text: string): Record<string, unknown> | undefined {
  try {
    const value = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined
  } catch {
    return undefined
  }
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error.name === 'TimeoutError') return `no answer within ${TIMEOUT_SECONDS} seconds`
  const { code, message } = (error.cause ?? error) as { code?: string; message?: string }
  return REASONS[code ?? ''] ?? (message || code || error.message)
}

const REASONS: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'the connection was cut',
  UND_ERR_SOCKET: 'the connection was cut',
  ENOTFOUND: 'its host name is not known',
  EAI_AGAIN: 'its host name can not be looked up',
}
