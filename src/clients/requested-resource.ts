import type { Context } from '../context.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { resourceCandidates } from '../protocol/resource.ts'
import { narrowScope } from '../protocol/scope.ts'
import type { ClientRow, ResourceRow } from '../store/database.ts'
import { Recall } from '../store/recall.ts'
import { findResource } from '../store/resource.ts'

/** Reason: no resource server has been added yet, so the operator has to act, not the client. */
export const NO_RESOURCE = 'no_resource_added'

/**
 * Finds the resource that a request names (RFC 8707 §2), or the default, among those that the client may have.
 *
 * @throws {OAuthError} `invalid_target`
 */
export async function findRequestedResource(
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

const recalledResources = new Recall<ResourceRow>()

/** Under which name a resource is kept: the URI by which it was requested, or nothing for the default. */
function recallKey(requested: string | undefined): string {
  return requested === undefined ? '' : (resourceCandidates(requested)[0] ?? '')
}

/**
 * The resource that `findRequestedResource` found for an earlier request, for what takes effect only where its row still
 * has that version.
 */
export function recallRequestedResource(
  { db }: Context,
  requested: string | undefined,
  client: ClientRow,
): ResourceRow | undefined {
  const resource = recalledResources.get(db, recallKey(requested))
  return resource !== undefined && isItself(resource, requested, client) ? resource : undefined
}

/** Keeps what `findRequestedResource` has found, if it would be found again as long as its row is the same. */
export function keepRequestedResource(
  { db }: Context,
  requested: string | undefined,
  client: ClientRow,
  resource: ResourceRow,
): void {
  if (isItself(resource, requested, client)) recalledResources.keep(db, recallKey(requested), resource)
}

/** Whether the row alone tells that a request means it. Of the default for a bound client, other rows decide. */
function isItself(resource: ResourceRow, requested: string | undefined, client: ClientRow): boolean {
  if (requested === undefined) return resource.is_default && client.resource_ids === null
  const isForClient = client.resource_ids?.includes(resource.id) ?? true
  return isForClient && resource.uri === recallKey(requested)
}

/**
 * Narrows a requested scope to what a person may grant the client at the resource, in the resource's order.
 *
 * @param requested `undefined` when none was
 * @throws {OAuthError} `invalid_scope` when nothing is left
 */
export function grantableScope(requested: string[] | undefined, client: ClientRow, resource: ResourceRow): string[] {
  return narrowScope(requested, {
    resourceScope: resource.scopes.map(({ name }) => name),
    defaultScope: client.default_scope ?? undefined,
    boundScope: client.bound_scope ?? undefined,
  })
}
