/**
 * For how long an answer may be used again (RFC 9111 §4.2.1), in whole seconds.
 *
 * @param headers names in lower case; a repeated header counts once, with its first value
 * @param limits the answer's word is clamped to these; `fallback` when it says nothing usable
 */
export function freshSeconds(
  headers: Readonly<Record<string, string | undefined>>,
  limits: { least: number; most: number; fallback: number },
): number {
  const seconds = statedSeconds(headers) ?? limits.fallback
  return Math.min(limits.most, Math.max(limits.least, seconds))
}

function statedSeconds(headers: Readonly<Record<string, string | undefined>>): number | undefined {
  const directives = (headers['cache-control'] ?? '')
    .toLowerCase()
    .split(',')
    .map((one) => one.trim())
  if (directives.includes('no-store') || directives.includes('no-cache')) return 0
  const maxAge = directives.map((one) => /^max-age="?(\d{1,10})"?$/.exec(one)?.[1]).find((one) => one !== undefined)
  if (maxAge !== undefined) return Number(maxAge) - (/^\d{1,10}$/.test(headers.age ?? '') ? Number(headers.age) : 0)
  if (headers.expires === undefined || headers.date === undefined) return undefined
  const seconds = Math.floor((Date.parse(headers.expires) - Date.parse(headers.date)) / 1000)
  return Number.isNaN(seconds) ? 0 : seconds // RFC 9111 §5.3: an Expires that can't be read is in the past
}
