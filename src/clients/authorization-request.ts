import type { Context } from '../context.ts'
import {
  type AuthorizationRequest,
  proveRedirectTarget,
  type RedirectTarget,
  readAuthorizationParameters,
  readAuthorizationRequest,
} from '../protocol/authorization-request.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { type Parameters, required } from '../protocol/parameters.ts'
import { readRequestUri, refuseContradictions } from '../protocol/pushed-authorization-request.ts'
import { redirectUriProblem } from '../protocol/redirect-uri.ts'
import type { ClientRow, ResourceRow } from '../store/database.ts'
import { findPushedRequest } from '../store/pushed-authorization-request.ts'
import { credentialHash } from '../tokens/secret.ts'
import { findClient } from './find.ts'
import { findRequestedResource, grantableScope } from './requested-resource.ts'

/** An authorization request that can be granted, if the person agrees. */
export interface GrantableRequest extends AuthorizationRequest {
  client: ClientRow
  /** when it was pushed, if it was (RFC 9126) */
  pushedAt: Date | undefined
  resource: ResourceRow
  /** narrowed to what may be granted, in the resource's order */
  scope: string[]
}

/** An authorization request whose client is known, and that may be answered at the client's redirect URI. */
export interface ProvenRequest {
  client: ClientRow
  target: RedirectTarget
  /** as in the URL */
  sent: Parameters
  /** what the request is: as sent, or as pushed */
  parameters: Parameters
  pushedAt: Date | undefined
}

/**
 * Finds the client of an authorization request and proves where its response goes (RFC 6749 §4.1.2.1). A pushed
 * request (RFC 9126 §4) takes the place of what the URL says.
 *
 * @param network that the request comes from
 * @throws {OAuthError} to be shown to the person: nothing may be sent to the redirect URI
 */
export async function proveClient(context: Context, sent: Parameters, network: string): Promise<ProvenRequest> {
  const clientId = required(sent, 'client_id')
  const { parameters, pushedAt } = await findAskedParameters(context, sent)
  const client = await findClient(context, clientId, {
    network,
    beforeFetch: () => checkBeforeFetch(context, parameters),
  })
  if (client === undefined || client.disabled_at !== null) {
    const reason = client === undefined ? 'client_unknown' : 'client_disabled'
    throw new OAuthError('invalid_client', 'this client is not registered here', reason)
  }
  const target = proveRedirectTarget(client.redirect_uris, parameters)
  return { client, target, sent, parameters, pushedAt }
}

/** What the request is: as sent, or as pushed. @throws {OAuthError} when what it refers to is not there (any more) */
export async function findAskedParameters(
  { db }: Context,
  sent: Parameters,
): Promise<Pick<ProvenRequest, 'parameters' | 'pushedAt'>> {
  const reference = readRequestUri(sent.get('request_uri') ?? '')
  if (reference === undefined) return { parameters: sent, pushedAt: undefined }
  const requestHash = credentialHash('pushedRequest', reference)
  const pushed = requestHash && (await findPushedRequest(db, requestHash, required(sent, 'client_id')))
  if (pushed !== undefined) return { parameters: pushed.parameters, pushedAt: pushed.createdAt }
  throw new OAuthError('invalid_request', 'this request is not known here, or no longer', 'pushed_request_unknown')
}

/** What can be judged before it is known who asks: a document is fetched only for a request that could pass. */
function checkBeforeFetch({ config }: Context, parameters: Parameters): void {
  const redirectUri = parameters.get('redirect_uri')
  if (redirectUri !== undefined && redirectUriProblem(redirectUri, config.redirectSchemes) !== undefined) {
    throw new OAuthError('invalid_request', 'redirect_uri is not usable', 'redirect_uri_mismatch')
  }
  readAuthorizationParameters(parameters)
}

/**
 * Judges the rest of an authorization request: its parameters, its resource, its scope.
 *
 * @throws {OAuthError} to be sent to the target; with the reason `NO_RESOURCE` to be shown to the person
 */
export async function judgeAuthorizationRequest(context: Context, proven: ProvenRequest): Promise<GrantableRequest> {
  const { client, target, sent, parameters, pushedAt } = proven
  if (pushedAt !== undefined) refuseContradictions(sent, parameters)
  const request = readAuthorizationRequest(target, parameters)
  if (!client.grant_types.includes('authorization_code')) {
    throw new OAuthError('unauthorized_client', 'this client may not use the authorization code grant')
  }
  const resource = await findRequestedResource(context, request.requestedResource, client)
  const scope = grantableScope(request.requestedScope, client, resource)
  return { ...request, client, pushedAt, resource, scope }
}
