import type { Context } from '../context.ts'
import {
  type AuthorizationRequest,
  proveRedirectTarget,
  type RedirectTarget,
  readAuthorizationRequest,
} from '../protocol/authorization-request.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { type Parameters, required } from '../protocol/parameters.ts'
import { resourceCandidates } from '../protocol/resource.ts'
import { narrowScope } from '../protocol/scope.ts'
import { findClient } from '../store/client.ts'
import type { ClientRow, ResourceRow } from '../store/database.ts'
import { findResource } from '../store/resource.ts'

/** An authorization request that can be granted, if the person agrees. */
export interface GrantableRequest extends AuthorizationRequest {
  client: ClientRow
  resource: ResourceRow
  /** narrowed to what may be granted, in the resource's order */
  scope: string[]
}

/** No resource server has been added yet: the operator has to act, not the client. */
export const NO_RESOURCE = 'no_resource_added'

/**
 * Finds the client of an authorization request and proves where its response goes (RFC 6749 §4.1.2.1).
 *
 * @throws {OAuthError} to be shown to the person: nothing may be sent to the redirect URI
 */
export async function proveClient(
  context: Context,
  parameters: Parameters,
): Promise<{ client: ClientRow; target: RedirectTarget }> {
  const client = await findClient(context.db, required(parameters, 'client_id'))
  if (client === undefined)
    throw new OAuthError('invalid_client', 'this client is not registered here', 'client_unknown')
  if (client.disabled_at !== null) throw new OAuthError('invalid_client', 'this client is disabled', 'client_disabled')
  return { client, target: proveRedirectTarget(client.redirect_uris, parameters) }
}

/**
 * Judges the rest of an authorization request: its parameters, its resource, its scope.
 *
 * @throws {OAuthError} to be sent to the target; with the reason `NO_RESOURCE` to be shown to the person
 */
export async function judgeAuthorizationRequest(
  context: Context,
  client: ClientRow,
  target: RedirectTarget,
  parameters: Parameters,
): Promise<GrantableRequest> {
  const request = readAuthorizationRequest(target, parameters)
  if (!client.grant_types.includes('authorization_code')) {
    throw new OAuthError('unauthorized_client', 'this client may not use the authorization code grant')
  }
  const resource = await requestedResource(context, request.requestedResource, client)
  const scope = narrowScope(request.requestedScope, {
    resourceScope: resource.scopes.map(({ name }) => name),
    defaultScope: client.default_scope ?? undefined,
    boundScope: client.bound_scope ?? undefined,
  })
  return { ...request, client, resource, scope }
}

async function requestedResource(
  context: Context,
  requested: string | undefined,
  client: ClientRow,
): Promise<ResourceRow> {
  const candidates = requested === undefined ? undefined : resourceCandidates(requested)
  const resource = await findResource(context.db, candidates, client.resource_ids ?? undefined)
  if (resource !== undefined) return resource
  if ((await findResource(context.db, undefined)) === undefined) {
    throw new OAuthError(
      'invalid_target',
      'no resource server has been added to this authorization server',
      NO_RESOURCE,
    )
  }
  throw new OAuthError('invalid_target', 'this resource is not known here, or not for this client', 'resource_unknown')
}
