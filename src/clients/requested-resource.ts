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
const DEFAULT = '' // is no URI

/** Keeps a resource for `recallRequestedResource`, by what means it for as long as its row is the same. */
export function keepResource({ db }: Context, resource: ResourceRow): void {
  recalledResources.keep(db, resource.uri, resource)
  if (resource.is_default) recalledResources.keep(db, DEFAULT, resource)
}

/**
 * What `findRequestedResource` would find, if that can be told from a row which an earlier request has read; for what
 * takes effect only where the row still has that version. Which resource is the first of a bound client's, other rows
 * decide, and so they do for the second-best form of a URI.
 */
export function recallRequestedResource(
  { db }: Context,
  requested: string | undefined,
  { resource_ids: onlyIds }: ClientRow,
): ResourceRow | undefined {
  if (requested === undefined) return onlyIds === null ? recalledResources.get(db, DEFAULT) : undefined
  const [exact] = resourceCandidates(requested)
  const resource = exact === undefined ? undefined : recalledResources.get(db, exact)
  return resource !== undefined && (onlyIds?.includes(resource.id) ?? true) ? resource : undefined
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
