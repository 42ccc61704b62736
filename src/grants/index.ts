import { DEVICE_CODE_GRANT } from '../protocol/device-code.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import type { ClientRow } from '../store/database.ts'
import { authorizationCode } from './authorization-code.ts'
import { clientCredentials } from './client-credentials.ts'
import { deviceCode } from './device-code.ts'
import type { Grant } from './grant.ts'
import { refreshToken } from './refresh-token.ts'

/** The table of grants: `grant_type` and what answers it. */
const GRANTS: ReadonlyMap<string, Grant> = new Map([
  ['authorization_code', authorizationCode],
  ['refresh_token', refreshToken],
  ['client_credentials', clientCredentials],
  [DEVICE_CODE_GRANT, deviceCode],
])

/** For metadata (RFC 8414 §2). */
export const GRANT_TYPES: readonly string[] = [...GRANTS.keys()]

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
