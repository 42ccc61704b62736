import { ASSERTION_ALGORITHMS, type PublicJwk } from './client-assertion.ts'
import { CLIENT_AUTHENTICATION_METHODS, type ClientAuthenticationMethod } from './client-authentication.ts'
import { DEVICE_CODE_GRANT } from './device-code.ts'
import { OAuthError } from './oauth-error.ts'
import { redirectUriProblem } from './redirect-uri.ts'
import { isMeaningfulScope } from './scope.ts'

/** Client metadata as a registration request carries it, with types checked (RFC 7591 §2). */
export interface RequestedClientMetadata {
  redirect_uris?: string[] | undefined
  token_endpoint_auth_method?: string | undefined
  grant_types?: string[] | undefined
  response_types?: string[] | undefined
  scope?: string | undefined
  client_name?: string | undefined
  client_uri?: string | undefined
  logo_uri?: string | undefined
  tos_uri?: string | undefined
  policy_uri?: string | undefined
  contacts?: string[] | undefined
  software_id?: string | undefined
  software_version?: string | undefined
  application_type?: string | undefined
  /** the usable ones of the keys in `jwks` */
  jwks?: PublicJwk[] | undefined
  jwks_uri?: string | undefined
  token_endpoint_auth_signing_alg?: string | undefined
  dpop_bound_access_tokens?: boolean | undefined
  require_pushed_authorization_requests?: boolean | undefined
}

/** Members that describe a client to people; kept as sent, and nothing depends on them. */
export interface ClientDescription {
  client_uri?: string
  logo_uri?: string
  tos_uri?: string
  policy_uri?: string
  contacts?: string[]
  software_id?: string
  software_version?: string
  application_type?: string
}

/** The keys of a client that authenticates with one (RFC 7591 §2: never both). */
export type ClientKeys = { jwks: PublicJwk[] } | { jwksUri: string }

/** Client metadata as it takes effect. */
export interface ClientMetadata {
  name: string | undefined
  redirectUris: string[]
  tokenEndpointAuthMethod: ClientAuthenticationMethod
  grantTypes: string[]
  /** what the client gets when it asks for no scope */
  defaultScope: string[] | undefined
  /** it must prove possession of a key whenever it asks for tokens (RFC 9449 §5.2) */
  dpopBoundAccessTokens: boolean
  /** it must push its authorization requests (RFC 9126 §6) */
  requirePushedAuthorizationRequests?: boolean
  /** of a client that authenticates with `private_key_jwt` */
  keys?: ClientKeys | undefined
  /** the only algorithm that its assertions may have */
  signingAlgorithm?: string | undefined
  description: ClientDescription
}

/** The longest address of keys: it is a key of an index. */
const LONGEST_URL = 1024 // characters

/** Grants of clients that ask for none. */
const DEFAULT_GRANT_TYPES: readonly string[] = ['authorization_code', 'refresh_token']

/** Grants that a client may register for itself: in each of them a person decides. */
export const REGISTRABLE_GRANT_TYPES: readonly string[] = [...DEFAULT_GRANT_TYPES, DEVICE_CODE_GRANT]

/** What may be registered here. */
export interface RegistrationRules {
  /** private-use redirect schemes without a dot */
  redirectSchemes: readonly string[]
  /** grants that may be asked for; others are left out */
  grantTypes: readonly string[]
  /** for development: keys may be fetched over http */
  httpKeys?: boolean
}

/**
 * Works out the metadata that takes effect: unknown grants, response types and members are left out, and so are
 * scopes that mean nothing here, an empty value counts as absent, and `application_type` decides nothing, since clients get it wrong.
 *
 * An absent method means `client_secret_basic` (RFC 7591 §2), so a secret is issued; absent grants mean
 * both, so that a client which says nothing can refresh.
 *
 * @throws {OAuthError} `invalid_redirect_uri`, `invalid_client_metadata` when nothing usable is left
 */
export function effectiveClientMetadata(requested: RequestedClientMetadata, rules: RegistrationRules): ClientMetadata {
  const redirectUris = [...new Set((requested.redirect_uris ?? []).filter((uri) => uri !== ''))]
  for (const [index, uri] of redirectUris.entries()) {
    const problem = redirectUriProblem(uri, rules.redirectSchemes)
    if (problem !== undefined) throw new OAuthError('invalid_redirect_uri', `redirect URI ${index + 1} ${problem}`)
  }
  const requestedGrants = presentList(requested.grant_types) ?? DEFAULT_GRANT_TYPES
  const grantTypes = rules.grantTypes.filter((grant) => requestedGrants.includes(grant))
  if (!grantTypes.some((grant) => grant !== 'refresh_token')) {
    throw new OAuthError('invalid_client_metadata', 'grant_types holds no grant that this client can have')
  }
  if (redirectUris.length === 0 && grantTypes.includes('authorization_code')) {
    throw new OAuthError('invalid_redirect_uri', 'redirect_uris is missing')
  }
  if (grantTypes.includes('authorization_code') && presentList(requested.response_types)?.includes('code') === false) {
    throw new OAuthError('invalid_client_metadata', 'response_types does not hold code')
  }
  const method = authenticationMethod(presentText(requested.token_endpoint_auth_method))
  const scope = [...new Set((requested.scope ?? '').split(' ').filter(isMeaningfulScope))]
  return {
    name: displayName(requested.client_name),
    redirectUris,
    tokenEndpointAuthMethod: method,
    grantTypes,
    defaultScope: scope.length === 0 ? undefined : scope,
    dpopBoundAccessTokens: requested.dpop_bound_access_tokens ?? false,
    requirePushedAuthorizationRequests: requested.require_pushed_authorization_requests ?? false,
    description: readDescription(requested),
    ...(method === 'private_key_jwt' ? readKeys(requested, rules.httpKeys ?? false) : {}),
  }
}

function readKeys(
  requested: RequestedClientMetadata,
  httpAllowed: boolean,
): Pick<ClientMetadata, 'keys' | 'signingAlgorithm'> {
  const { jwks } = requested
  const jwksUri = presentText(requested.jwks_uri)
  const signingAlgorithm = presentText(requested.token_endpoint_auth_signing_alg)
  if (signingAlgorithm !== undefined && !ASSERTION_ALGORITHMS.some((one) => one === signingAlgorithm)) {
    throw new OAuthError('invalid_client_metadata', 'token_endpoint_auth_signing_alg is not supported')
  }
  if ((jwks === undefined) === (jwksUri === undefined)) {
    throw new OAuthError('invalid_client_metadata', 'private_key_jwt needs one of jwks and jwks_uri')
  }
  if (jwksUri !== undefined) {
    const fetchable = fetchableUrl(jwksUri, httpAllowed)
    if (fetchable !== undefined) return { keys: { jwksUri: fetchable }, signingAlgorithm }
    throw new OAuthError('invalid_client_metadata', 'jwks_uri is not an https URL of at most 1,024 characters')
  }
  if (jwks === undefined || jwks.length === 0) {
    throw new OAuthError('invalid_client_metadata', 'jwks holds no public key that can be used here')
  }
  return { keys: { jwks }, signingAlgorithm }
}

/** A URL in its canonical form, which is ASCII; `undefined` when nothing may be fetched from there. */
function fetchableUrl(uri: string, httpAllowed: boolean): string | undefined {
  if (!URL.canParse(uri)) return undefined
  const { href, protocol, username, password } = new URL(uri)
  const isWeb = protocol === 'https:' || (httpAllowed && protocol === 'http:')
  return isWeb && username === '' && password === '' && href.length <= LONGEST_URL ? href : undefined
}

function authenticationMethod(requested: string | undefined): ClientAuthenticationMethod {
  const method = requested ?? 'client_secret_basic'
  const known = CLIENT_AUTHENTICATION_METHODS.find((one) => one === method)
  if (known === undefined) {
    throw new OAuthError('invalid_client_metadata', 'token_endpoint_auth_method is not supported')
  }
  return known
}

function readDescription(requested: RequestedClientMetadata): ClientDescription {
  const description: ClientDescription = {}
  for (const member of ['client_uri', 'logo_uri', 'tos_uri', 'policy_uri'] as const) {
    const value = presentText(requested[member])
    if (value !== undefined && isWebUri(value)) description[member] = value
  }
  for (const member of ['software_id', 'software_version', 'application_type'] as const) {
    const value = presentText(requested[member])
    if (value !== undefined) description[member] = value
  }
  const contacts = presentList(requested.contacts)
  if (contacts !== undefined) description.contacts = contacts
  return description
}

/** A page that may be linked to: anything but the web's schemes could run in the reader's browser. */
function isWebUri(text: string): boolean {
  return URL.canParse(text) && ['https:', 'http:'].includes(new URL(text).protocol)
}

/** A name for people: characters that reorder or hide text are taken out, so that a name can't pose as another. */
function displayName(requested: string | undefined): string | undefined {
  const cut = requested?.slice(0, 200) // maybe in the middle of a character: its half goes with the rest
  return presentText(cut?.replace(/[\p{Control}\p{Bidi_Control}\p{Surrogate}\u200b\u2060\ufeff]/gu, ''))
}

function presentText(value: string | undefined): string | undefined {
  return value === undefined || value.trim() === '' ? undefined : value.trim()
}

function presentList(values: string[] | undefined): string[] | undefined {
  const present = (values ?? []).filter((value) => value !== '')
  return present.length === 0 ? undefined : present
}
