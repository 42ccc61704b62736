import type { Context } from '../context.ts'
import type { PublicJwk } from '../protocol/client-assertion.ts'
import type { ClientDescription, ClientMetadata } from '../protocol/client-metadata.ts'
import { insertClient, type ReplacedMetadata } from '../store/client.ts'
import type { ClientRow } from '../store/database.ts'
import { hashSecret, issueCredential, randomId } from '../tokens/secret.ts'
import { mustPush } from './client-policy.ts'

/** Unused clients that are kept for one network; the oldest of more than these are removed. */
export const UNUSED_KEPT_PER_NETWORK = 1000

/** What an operator may set for a client, beside its metadata. */
export interface OperatorBounds {
  boundScope: string[] | null
  resourceIds: string[] | null
}

/** Client information response (RFC 7591 §3.2.1): the metadata that takes effect. */
export interface ClientInformation extends ClientDescription {
  client_id: string
  client_id_issued_at: number
  client_secret?: string
  /** 0: never */
  client_secret_expires_at?: number
  registration_access_token?: string
  registration_client_uri?: string
  client_name?: string
  redirect_uris: string[]
  token_endpoint_auth_method: string
  grant_types: string[]
  response_types: string[]
  scope?: string
  dpop_bound_access_tokens?: true
  require_pushed_authorization_requests?: true
  jwks?: { keys: PublicJwk[] }
  jwks_uri?: string
  token_endpoint_auth_signing_alg?: string
}

/** Credentials that were just issued: they are in the answer, and only there. */
export interface IssuedCredentials {
  secret?: string | undefined
  registrationToken?: string | undefined
}

/**
 * Creates a client and its credentials: a secret if it uses one, and for a client that registers itself a token
 * with which it may manage its registration (RFC 7592).
 *
 * @param origin the network of a client that registers itself, or an operator's bounds
 */
export async function registerClient(
  context: Pick<Context, 'config' | 'db'>,
  metadata: ClientMetadata,
  origin: { registration: 'open' | 'token'; network: string } | { registration: 'operator'; bounds: OperatorBounds },
): Promise<ClientInformation> {
  const secret = usesSecret(metadata) ? issueCredential('clientSecret') : undefined
  const registrationToken = origin.registration === 'operator' ? undefined : issueCredential('registrationToken')
  const client = await insertClient(
    context.db,
    {
      id: randomId(),
      ...storedMetadata(metadata, secret === undefined ? null : hashSecret(secret)),
      registration: origin.registration,
      registrationSource: origin.registration === 'operator' ? null : origin.network,
      registrationTokenHash: registrationToken === undefined ? null : hashSecret(registrationToken),
      ...(origin.registration === 'operator' ? origin.bounds : { boundScope: null, resourceIds: null }),
    },
    UNUSED_KEPT_PER_NETWORK,
  )
  return clientInformation(context, client, { secret, registrationToken })
}

/** Whether a client with this metadata has a secret. */
export function usesSecret({ tokenEndpointAuthMethod }: ClientMetadata): boolean {
  return tokenEndpointAuthMethod.startsWith('client_secret_')
}

/** The columns of a client that its metadata decides. */
export function storedMetadata(metadata: ClientMetadata, secretHash: Buffer | null): ReplacedMetadata {
  return {
    name: metadata.name ?? null,
    secretHash,
    tokenEndpointAuthMethod: metadata.tokenEndpointAuthMethod,
    redirectUris: metadata.redirectUris,
    grantTypes: metadata.grantTypes,
    defaultScope: metadata.defaultScope ?? null,
    dpopBoundAccessTokens: metadata.dpopBoundAccessTokens,
    requirePushedAuthorizationRequests: metadata.requirePushedAuthorizationRequests ?? false,
    jwks: metadata.keys && 'jwks' in metadata.keys ? metadata.keys.jwks : null,
    jwksUri: metadata.keys && 'jwksUri' in metadata.keys ? metadata.keys.jwksUri : null,
    signingAlgorithm: metadata.signingAlgorithm ?? null,
    description: metadata.description,
  }
}

/** What a client is told about itself (RFC 7591 §3.2.1, RFC 7592 §3). */
export function clientInformation(
  { config }: Pick<Context, 'config'>,
  client: ClientRow,
  { secret, registrationToken }: IssuedCredentials,
): ClientInformation {
  return {
    client_id: client.id,
    client_id_issued_at: Math.floor(client.created_at.getTime() / 1000),
    ...(secret === undefined ? {} : { client_secret: secret, client_secret_expires_at: 0 }),
    ...(registrationToken === undefined
      ? {}
      : {
          registration_access_token: registrationToken,
          registration_client_uri: `${config.issuer}/register?client_id=${client.id}`,
        }),
    ...(client.name === null ? {} : { client_name: client.name }),
    redirect_uris: client.redirect_uris,
    token_endpoint_auth_method: client.token_endpoint_auth_method,
    grant_types: client.grant_types,
    response_types: client.grant_types.includes('authorization_code') ? ['code'] : [],
    ...(client.default_scope === null ? {} : { scope: client.default_scope.join(' ') }),
    ...(client.dpop_bound_access_tokens ? { dpop_bound_access_tokens: true } : {}),
    ...(mustPush(client) ? { require_pushed_authorization_requests: true } : {}),
    ...(client.jwks === null ? {} : { jwks: { keys: client.jwks } }),
    ...(client.jwks_uri === null ? {} : { jwks_uri: client.jwks_uri }),
    ...(client.token_endpoint_auth_signing_alg === null
      ? {}
      : { token_endpoint_auth_signing_alg: client.token_endpoint_auth_signing_alg }),
    ...client.description,
  }
}
