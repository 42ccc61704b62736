import type { Context } from '../context.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import type { Parameters } from '../protocol/parameters.ts'
import type { TokenExchangeResponse } from '../protocol/token-exchange.ts'
import type { ClientRow, ResourceRow } from '../store/database.ts'
import type { TokenResponse } from '../tokens/pair.ts'

/** A token request whose client is authenticated and may use the grant. */
export interface GrantRequest {
  client: ClientRow
  parameters: Parameters
  /** thumbprint of the key whose possession the request proved, if it did (RFC 9449 §5) */
  dpopJkt: string | undefined
}

/**
 * What /token does for one `grant_type`.
 *
 * @throws {OAuthError} whose `reason` says why
 */
export type Grant = (context: Context, request: GrantRequest) => Promise<TokenResponse>

/** A token request whose client may have been judged by a row that an earlier request has read (`Recall`). */
export interface RecallingRequest extends GrantRequest {
  /** the version of that row; `undefined` when it was read for this request */
  clientVersion?: string | undefined
}

/**
 * A grant that can do with a recalled client: it issues in one statement, only where the row has that version, and refuses
 * otherwise (`changedMeanwhile`), before anything else is done; `/token` then takes a fresh look, whatever the reason was.
 * The compiler doesn't see whether a grant keeps to this: it is for the table to say, and for a test of each to show.
 */
export type RecallingGrant = (context: Context, request: RecallingRequest) => Promise<TokenResponse>

/** What was looked at has changed since then: the same request will find it settled. */
export function changedMeanwhile(what: 'client' | 'family'): OAuthError {
  const retry = { retryAfterSeconds: 1 }
  return new OAuthError('temporarily_unavailable', 'try again', `${what}_changed_meanwhile`, retry)
}

/** A token request of a resource server, which is authenticated. */
export interface ResourceServerRequest {
  resource: ResourceRow
  parameters: Parameters
}

/**
 * What /token does for one `grant_type` when a resource server asks, with its own credentials.
 *
 * @throws {OAuthError} whose `reason` says why
 */
export type ResourceServerGrant = (context: Context, request: ResourceServerRequest) => Promise<TokenExchangeResponse>
