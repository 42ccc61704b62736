import type { Context } from '../context.ts'
import type { ClientDescription, ClientMetadata } from '../protocol/client-metadata.ts'
import { insertClient } from '../store/client.ts'
import { hashSecret, issueCredential, randomId } from '../tokens/secret.ts'

/** Unused clients that are kept for one network; the oldest of more than these are removed. */
const UNUSED_KEPT_PER_NETWORK = 1000

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
  client_name?: string
  redirect_uris: string[]
  token_endpoint_auth_method: string
  grant_types: string[]
  response_types: string[]
  scope?: string
}

/**
 * Creates a client and its secret, if it uses one. The secret is in the answer, and only there.
 *
 * @param origin the network of a client that registers itself, or an operator's bounds
 */
export async function registerClient(
  context: Pick<Context, 'db'>,
  metadata: ClientMetadata,
  origin: { registration: 'open' | 'token'; network: string } | { registration: 'operator'; bounds: OperatorBounds },
): Promise<ClientInformation> {
  const id = randomId()
  const secret = metadata.tokenEndpointAuthMethod === 'none' ? undefined : issueCredential('clientSecret')
  const createdAt = await insertClient(
    context.db,
    {
      id,
      name: metadata.name ?? null,
      secretHash: secret === undefined ? null : hashSecret(secret),
      tokenEndpointAuthMethod: metadata.tokenEndpointAuthMethod,
      redirectUris: metadata.redirectUris,
      grantTypes: metadata.grantTypes,
      defaultScope: metadata.defaultScope ?? null,
      description: metadata.description,
      registration: origin.registration,
      registrationSource: origin.registration === 'operator' ? null : origin.network,
      ...(origin.registration === 'operator' ? origin.bounds : { boundScope: null, resourceIds: null }),
    },
    UNUSED_KEPT_PER_NETWORK,
  )
  return {
    client_id: id,
    client_id_issued_at: Math.floor(createdAt.getTime() / 1000),
    ...(secret === undefined ? {} : { client_secret: secret, client_secret_expires_at: 0 }),
    ...(metadata.name === undefined ? {} : { client_name: metadata.name }),
    redirect_uris: metadata.redirectUris,
    token_endpoint_auth_method: metadata.tokenEndpointAuthMethod,
    grant_types: metadata.grantTypes,
    response_types: ['code'],
    ...(metadata.defaultScope === undefined ? {} : { scope: metadata.defaultScope.join(' ') }),
    ...metadata.description,
  }
}
