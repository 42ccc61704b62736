import { ASSERTION_ALGORITHMS } from './client-assertion.ts'
import { CLIENT_AUTHENTICATION_METHODS } from './client-authentication.ts'
import { DPOP_ALGORITHMS } from './dpop.ts'
import { protectedResourceMetadataUrl } from './resource.ts'

/** What the discovery document depends on. */
export interface MetadataFacts {
  issuer: string
  grantTypes: readonly string[]
  /** whether clients may register themselves */
  registration: boolean
  /** whether clients may be identified by a metadata document */
  metadataDocument: boolean
  /** whether responses carry `iss` (RFC 9207) */
  issParameter: boolean
  /** all scopes of all resources: clients ask for every one that they see here */
  scopes: readonly string[]
  /** of the keys at /jwks */
  signingAlgorithms: readonly string[]
}

/** Authorization server metadata (RFC 8414 §2): what works, and nothing else. A list without elements is left out. */
export function authorizationServerMetadata(facts: MetadataFacts) {
  const { issuer } = facts
  return {
    issuer,
    authorization_endpoint: `${issuer}/authorize`,
    token_endpoint: `${issuer}/token`,
    ...(facts.registration ? { registration_endpoint: `${issuer}/register` } : {}),
    device_authorization_endpoint: `${issuer}/device_authorization`,
    pushed_authorization_request_endpoint: `${issuer}/par`,
    revocation_endpoint: `${issuer}/revoke`,
    introspection_endpoint: `${issuer}/introspect`,
    jwks_uri: `${issuer}/jwks`,
    ...(facts.scopes.length === 0 ? {} : { scopes_supported: facts.scopes }),
    response_types_supported: ['code'],
    response_modes_supported: ['query'],
    grant_types_supported: facts.grantTypes,
    code_challenge_methods_supported: ['S256'],
    token_endpoint_auth_methods_supported: CLIENT_AUTHENTICATION_METHODS,
    token_endpoint_auth_signing_alg_values_supported: ASSERTION_ALGORITHMS,
    revocation_endpoint_auth_methods_supported: CLIENT_AUTHENTICATION_METHODS,
    revocation_endpoint_auth_signing_alg_values_supported: ASSERTION_ALGORITHMS,
    introspection_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
    ...(facts.signingAlgorithms.length === 0
      ? {}
      : { introspection_signing_alg_values_supported: facts.signingAlgorithms }), // RFC 9701 §7
    dpop_signing_alg_values_supported: DPOP_ALGORITHMS,
    prompt_values_supported: ['none', 'login', 'consent', 'select_account'],
    authorization_response_iss_parameter_supported: facts.issParameter,
    client_id_metadata_document_supported: facts.metadataDocument,
  }
}

/** The document that a resource server should serve about itself (RFC 9728 §2), and where. */
export function protectedResourceMetadata(
  resource: string,
  name: string | null,
  issuer: string,
  scopes: readonly string[],
) {
  return {
    url: protectedResourceMetadataUrl(resource),
    document: {
      resource,
      authorization_servers: [issuer],
      ...(scopes.length === 0 ? {} : { scopes_supported: scopes }),
      bearer_methods_supported: ['header'],
      ...(name === null ? {} : { resource_name: name }),
    },
  }
}
