import { createHash } from 'node:crypto'
import type { ClientMetadata } from './client-metadata.ts'
import { OAuthError } from './oauth-error.ts'
import { redirectPlace } from './redirect-uri.ts'

/** The longest client identifier: it is a key of several indexes. */
const LONGEST_URL = 1024 // characters, all of them ASCII

/** Methods of authentication that need no shared secret, which a public document can't hold. */
export type DocumentMethod = 'none' | 'private_key_jwt'

/** Whether a client identifier is meant to be the address of a metadata document. Registered ones never are. */
export function isClientIdUrl(clientId: string): boolean {
  return /^https?:\/\//i.test(clientId)
}

/**
 * Says why a client identifier can't be the address of a metadata document (draft-ietf-oauth-client-id-metadata-document §3):
 * https, a path, no fragment, no credentials, no dot segments, however they are written.
 *
 * Only the canonical form of a URL is taken, so that no two programs read it differently.
 *
 * @param allowHttp for development: http on loopback
 * @returns `undefined` when it can
 */
export function clientIdUrlProblem(clientId: string, allowHttp: boolean): string | undefined {
  if (clientId.length > LONGEST_URL) return 'is too long'
  if (!URL.canParse(clientId)) return 'is not a URL'
  const url = new URL(clientId)
  if (url.protocol !== 'https:' && !(allowHttp && url.protocol === 'http:')) return 'is not an https URL'
  if (clientId.includes('#')) return 'has a fragment'
  if (url.username !== '' || url.password !== '') return 'holds credentials'
  if (url.hostname.endsWith('.')) return 'has a host that ends in a dot'
  if (url.pathname === '/') return 'has no path'
  return url.href === clientId ? undefined : 'is not in canonical form' // a dot segment, also as %2e, is resolved in href
}

/** The hosts whose documents are accepted: names, or `*.example.com` for all below one. */
export interface HostRules {
  /** `undefined`: all */
  allow: readonly string[] | undefined
  deny: readonly string[]
}

/** Whether a document may come from a host. What is denied stays so, whatever is allowed. */
export function isHostAllowed(host: string, { allow, deny }: HostRules): boolean {
  const matches = (pattern: string) =>
    pattern.startsWith('*.') ? host.endsWith(pattern.slice(1)) && host.length > pattern.length - 1 : host === pattern
  return !deny.some(matches) && (allow === undefined || allow.some(matches))
}

/** Members of a document that have rules of their own; the others are those of a registration. */
export interface DocumentWords {
  client_id?: unknown
  client_secret?: unknown
  client_secret_expires_at?: unknown
  token_endpoint_auth_method?: unknown
  /** all methods that the client may choose from at each request, as ChatGPT's document has it */
  token_endpoint_auth_methods_supported?: string[] | undefined
}

/**
 * Judges what a document says that a registration doesn't (draft §4): it is about the address that it came from,
 * and has no shared secret.
 *
 * @returns how the client may authenticate; it chooses for each request
 * @throws {OAuthError} `invalid_client_metadata`
 */
export function readDocumentMethods(clientId: string, document: DocumentWords, hasKeys: boolean): DocumentMethod[] {
  if (document.client_id !== clientId) throw unusable('client_id is not the address of the document')
  if ('client_secret' in document || 'client_secret_expires_at' in document) throw unusable('the document has a secret')
  const method = document.token_endpoint_auth_method || undefined // an empty text is absent
  if (method !== undefined && !isDocumentMethod(method)) {
    throw unusable('token_endpoint_auth_method is not one for a public document')
  }
  const named = new Set<string>(document.token_endpoint_auth_methods_supported)
  if (method !== undefined || named.size === 0) named.add(method ?? 'none') // without a word nothing else can be meant
  if (!hasKeys) named.delete('private_key_jwt')
  const methods = (['none', 'private_key_jwt'] as const).filter((one) => named.has(one))
  if (methods.length === 0) throw unusable('the document has no usable method of authentication')
  return methods
}

/**
 * A digest of what a person judges when they consent to a document's client: when it changes, they are asked
 * again. Keys, scopes and paths may change; a name, a place where codes go, or proof that is no longer needed not.
 */
export function consentDigest(metadata: ClientMetadata, methods: readonly DocumentMethod[]): Buffer {
  const places = metadata.redirectUris.map((uri) => {
    const { kind, name } = redirectPlace(uri)
    return kind === 'loopback' ? kind : `${kind} ${name}` // its port says nothing
  })
  const judged = [metadata.name, metadata.description.client_uri, [...new Set(places)].sort(), methods]
  return createHash('sha256').update(JSON.stringify(judged)).digest()
}

function isDocumentMethod(method: unknown): method is DocumentMethod {
  return method === 'none' || method === 'private_key_jwt'
}

function unusable(problem: string): OAuthError {
  return new OAuthError('invalid_client_metadata', problem)
}
