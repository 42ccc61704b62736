import { CLIENT_AUTHENTICATION_METHODS, type ClientAuthenticationMethod } from './client-authentication.ts'
import { OAuthError } from './oauth-error.ts'
import { redirectUriProblem } from './redirect-uri.ts'
import { isScopeName } from './scope.ts'

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

/** Client metadata as it takes effect. */
export interface ClientMetadata {
  name: string | undefined
  redirectUris: string[]
  tokenEndpointAuthMethod: ClientAuthenticationMethod
  grantTypes: string[]
  /** what the client gets when it asks for no scope */
  defaultScope: string[] | undefined
  description: ClientDescription
}

/** Grants that a client may register for itself. */
export const REGISTRABLE_GRANT_TYPES: readonly string[] = ['authorization_code', 'refresh_token']

/**
 * Works out the metadata that takes effect: unknown grants, response types, scopes and members are left
 * out, an empty value counts as absent, and `application_type` decides nothing, since clients get it wrong.
 *
 * An absent method means `client_secret_basic` (RFC 7591 §2), so a secret is issued; absent grants mean
 * both, so that a client which says nothing can refresh.
 *
 * @param allowedSchemes private-use redirect schemes without a dot
 * @throws {OAuthError} `invalid_redirect_uri`, `invalid_client_metadata` when nothing usable is left
 */
export function effectiveClientMetadata(
  requested: RequestedClientMetadata,
  allowedSchemes: readonly string[],
): ClientMetadata {
  const redirectUris = [...new Set((requested.redirect_uris ?? []).filter((uri) => uri !== ''))]
  if (redirectUris.length === 0) throw new OAuthError('invalid_redirect_uri', 'redirect_uris is missing')
  for (const [index, uri] of redirectUris.entries()) {
    const problem = redirectUriProblem(uri, allowedSchemes)
    if (problem !== undefined) throw new OAuthError('invalid_redirect_uri', `redirect URI ${index + 1} ${problem}`)
  }
  const requestedGrants = presentList(requested.grant_types)
  const grantTypes = REGISTRABLE_GRANT_TYPES.filter((grant) => requestedGrants?.includes(grant) ?? true)
  if (!grantTypes.includes('authorization_code')) {
    throw new OAuthError('invalid_client_metadata', 'grant_types holds no grant that a client can register for')
  }
  if (presentList(requested.response_types)?.includes('code') === false) {
    throw new OAuthError('invalid_client_metadata', 'response_types does not hold code')
  }
  const scope = [...new Set((requested.scope ?? '').split(' ').filter(isScopeName))]
  return {
    name: displayName(requested.client_name),
    redirectUris,
    tokenEndpointAuthMethod: authenticationMethod(presentText(requested.token_endpoint_auth_method)),
    grantTypes,
    defaultScope: scope.length === 0 ? undefined : scope,
    description: readDescription(requested),
  }
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
