/**
 * Brings a resource indicator into its one form (RFC 8707 §2): scheme and host in lower case, no
 * default port, no bare root slash.
 *
 * @returns `undefined` when it is not an absolute https or http URI without fragment and credentials
 */
export function canonicalResource(uri: string): string | undefined {
  if (!URL.canParse(uri) || /\s/.test(uri)) return undefined
  const url = new URL(uri)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return undefined
  if (uri.includes('#') || url.username !== '' || url.password !== '') return undefined
  return url.pathname === '/' && url.search === '' ? url.origin : url.href
}

/**
 * The forms under which a requested resource may have been added, the exact one first: one trailing
 * slash is ignored, unless both forms were added (clients add or drop it).
 *
 * @returns nothing when the indicator is not a usable URI
 */
export function resourceCandidates(uri: string): string[] {
  const exact = canonicalResource(uri)
  if (exact === undefined) return []
  if (new URL(exact).search !== '' || !/^https?:\/\/[^/]+\/./.test(exact)) return [exact]
  return [exact, exact.endsWith('/') ? exact.slice(0, -1) : `${exact}/`]
}

/** Where a resource server serves its metadata: the well-known part goes before the path (RFC 9728 §3.1). */
export function protectedResourceMetadataUrl(resource: string): string {
  const url = new URL(resource)
  const path = url.pathname === '/' ? '' : url.pathname
  return `${url.origin}/.well-known/oauth-protected-resource${path}${url.search}`
}
