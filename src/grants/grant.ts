import type { Context } from '../context.ts'
import type { Parameters } from '../protocol/parameters.ts'
import type { ClientRow } from '../store/database.ts'
import type { TokenResponse } from '../tokens/pair.ts'

/**
 * What /token does for one `grant_type`: the client is authenticated and may use the grant.
 *
 * @throws {OAuthError} whose `reason` says why
 */
export type Grant = (context: Context, client: ClientRow, parameters: Parameters) => Promise<TokenResponse>
