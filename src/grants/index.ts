import type { Config } from '../config.ts'
import { DEVICE_CODE_GRANT } from '../protocol/device-code.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import type { Parameters } from '../protocol/parameters.ts'
import { TOKEN_EXCHANGE_GRANT } from '../protocol/token-exchange.ts'
import type { ClientRow } from '../store/database.ts'
import { authorizationCode } from './authorization-code.ts'
import { clientCredentials } from './client-credentials.ts'
import { deviceCode } from './device-code.ts'
import type { Grant, RecallingGrant, ResourceServerGrant } from './grant.ts'
import { refreshToken } from './refresh-token.ts'
import { isUpstreamHandle, tokenExchange, upstreamHandle } from './token-exchange.ts'

/** Grants that can do with a recalled client; `test/grants/recall.test.ts` shows it of each. */
export const RECALLING_GRANTS: ReadonlyMap<string, RecallingGrant> = new Map([
  ['authorization_code', authorizationCode],
  ['refresh_token', refreshToken],
  ['client_credentials', clientCredentials],
])

/** The table of grants: `grant_type` and what answers it. */
const GRANTS: ReadonlyMap<string, Grant> = new Map<string, Grant>([
  ...RECALLING_GRANTS,
  [DEVICE_CODE_GRANT, deviceCode],
])

/** The table of what resource servers may ask for, who are never clients. */
const RESOURCE_SERVER_GRANTS: ReadonlyMap<string, ResourceServerGrant> = new Map([
  [TOKEN_EXCHANGE_GRANT, tokenExchange],
  ['refresh_token', upstreamHandle],
])

/** What clients may use. */
export const GRANT_TYPES: readonly string[] = [...GRANTS.keys()]

/** All that works at /token, for metadata (RFC 8414 §2). */
export function supportedGrantTypes(config: Pick<Config, 'encryptionKey'>): string[] {
  return keepsUpstreamTokens(config)
    ? [...new Set([...GRANT_TYPES, ...RESOURCE_SERVER_GRANTS.keys()])]
    : [...GRANT_TYPES]
}

/**
 * The grant that a request asks for.
 *
 * @throws {OAuthError} `unsupported_grant_type`, or `unauthorized_client` when this client may not use it
 */
export function grantFor(grantType: string, client: ClientRow): Grant {
  const grant = GRANTS.get(grantType)
  if (grant === undefined) throw new OAuthError('unsupported_grant_type', 'this grant_type is not supported')
  if (!client.grant_types.includes(grantType)) {
    throw new OAuthError('unauthorized_client', 'this client may not use this grant_type')
  }
  return grant
}

/** The same for a recalled client; `undefined` when it takes a fresh look to answer. @throws {OAuthError} as `grantFor` */
export function recallingGrantFor(grantType: string, client: ClientRow): RecallingGrant | undefined {
  grantFor(grantType, client)
  return RECALLING_GRANTS.get(grantType)
}

/** The grant that a request asks for which only a resource server can send; `undefined` for all others. */
export function resourceServerGrantFor(
  config: Pick<Config, 'encryptionKey'>,
  parameters: Parameters,
): ResourceServerGrant | undefined {
  const grantType = parameters.get('grant_type') ?? ''
  if (!keepsUpstreamTokens(config)) return undefined
  if (grantType === 'refresh_token' && !isUpstreamHandle(parameters.get('refresh_token'))) return undefined
  return RESOURCE_SERVER_GRANTS.get(grantType)
}

/** Without a key to seal them with, no token of a provider is ever kept. */
function keepsUpstreamTokens({ encryptionKey }: Pick<Config, 'encryptionKey'>): boolean {
  return encryptionKey !== undefined
}
