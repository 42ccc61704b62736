import { OAuthError } from './oauth-error.ts'
import { type Parameters, required } from './parameters.ts'
import { canonicalResource } from './resource.ts'

export const TOKEN_EXCHANGE_GRANT = 'urn:ietf:params:oauth:grant-type:token-exchange'

/** Token type identifiers (RFC 8693 §3). */
export const ACCESS_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:access_token'
export const REFRESH_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:refresh_token'

/** Which provider a resource server means; it needn't say when there is one alone. */
export interface UpstreamTarget {
  /** its id */
  audience: string | undefined
  /** its issuer */
  resource: string | undefined
}

/** A token exchange request (RFC 8693 §2.1). */
export interface TokenExchangeRequest {
  subjectToken: string
  subjectTokenType: typeof ACCESS_TOKEN_TYPE | typeof REFRESH_TOKEN_TYPE
  target: UpstreamTarget
  /** whether it asks for a handle, to go on while the person is away */
  offline: boolean
}

/** Successful answer to a token exchange (RFC 8693 §2.2.1). */
export interface TokenExchangeResponse {
  /** of the provider */
  access_token: string
  issued_token_type: typeof ACCESS_TOKEN_TYPE
  token_type: 'Bearer'
  /** seconds; absent when the provider doesn't say */
  expires_in?: number
  /** absent when the provider doesn't say */
  scope?: string
  /** a handle */
  refresh_token?: string
}

/** Reads a token exchange request. @throws {OAuthError} `invalid_request` */
export function readTokenExchange(parameters: Parameters): TokenExchangeRequest {
  const subjectToken = required(parameters, 'subject_token')
  const subjectTokenType = required(parameters, 'subject_token_type')
  if (subjectTokenType !== ACCESS_TOKEN_TYPE && subjectTokenType !== REFRESH_TOKEN_TYPE) {
    throw new OAuthError('invalid_request', 'this subject_token_type is not supported')
  }
  if ((parameters.get('requested_token_type') ?? ACCESS_TOKEN_TYPE) !== ACCESS_TOKEN_TYPE) {
    throw new OAuthError('invalid_request', 'this requested_token_type is not supported')
  }
  if (parameters.has('actor_token')) throw new OAuthError('invalid_request', 'actor_token is not supported')
  const offline = (parameters.get('scope') ?? '').split(' ').includes('offline_access')
  return { subjectToken, subjectTokenType, target: readUpstreamTarget(parameters), offline }
}

/** Reads which provider is meant. */
export function readUpstreamTarget(parameters: Parameters): UpstreamTarget {
  return { audience: parameters.get('audience'), resource: parameters.get('resource') }
}

/** What a resource server may do at a provider by a grant. */
export interface UpstreamOption {
  providerId: string
  issuer: string
  /** whether the provider is enabled, and its tokens are kept */
  usable: boolean
  /** whether it may go on while the person is away */
  offline: boolean
  /** whether the person agreed since it is allowed, and since an account there was unlinked */
  agreed: boolean
  /** whether there are tokens of the person; `ended`: the provider refuses to refresh them */
  tokens: 'kept' | 'ended' | 'none'
}

/** Why a resource server gets nothing. */
export type UpstreamRefusal =
  | 'not-allowed'
  | 'ambiguous'
  | 'not-usable'
  | 'not-agreed'
  | 'no-account'
  | 'sign-in-needed'

/**
 * Decides whether a resource server gets a token of a provider, and of which (RFC 8693 §2.2.2).
 *
 * @param options the providers at which it may act by this grant; none when the grant has ended
 */
export function judgeUpstream(
  options: readonly UpstreamOption[],
  { audience, resource }: UpstreamTarget,
): UpstreamOption | UpstreamRefusal {
  const [option, another] = options.filter(
    ({ providerId, issuer }) =>
      (audience === undefined || providerId === audience) &&
      (resource === undefined || isSameAddress(issuer, resource)),
  )
  if (option === undefined) return 'not-allowed'
  if (another !== undefined) return 'ambiguous'
  if (!option.usable) return 'not-usable'
  if (!option.agreed) return 'not-agreed'
  if (option.tokens === 'none') return 'no-account'
  return option.tokens === 'ended' ? 'sign-in-needed' : option
}

/** One trailing slash makes no difference, as for resources. */
function isSameAddress(one: string, other: string): boolean {
  const bare = (address: string) => canonicalResource(address)?.replace(/\/$/, '')
  return bare(one) !== undefined && bare(one) === bare(other)
}
