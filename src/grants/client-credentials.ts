import { findRequestedResource, keepResource, recallRequestedResource } from '../clients/requested-resource.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { narrowScope, readScope } from '../protocol/scope.ts'
import { insertClientToken } from '../store/access-token.ts'
import { issueAccessToken } from '../tokens/access-token.ts'
import { tokenResponse } from '../tokens/pair.ts'
import { changedMeanwhile, type RecallingGrant } from './grant.ts'

/**
 * Client credentials grant (RFC 6749 §4.4): a confidential client acts for itself, with no person and no refresh
 * token. Only for clients that an operator added: nobody has approved one that registered itself.
 */
export const clientCredentials: RecallingGrant = async (context, { client, clientVersion, parameters, dpopJkt }) => {
  if (client.registration !== 'operator' || client.token_endpoint_auth_method === 'none') {
    throw new OAuthError('unauthorized_client', 'this client may not use this grant_type', 'client_not_approved')
  }
  const requested = parameters.get('resource')
  const recalled = clientVersion === undefined ? undefined : recallRequestedResource(context, requested, client)
  const resource = recalled ?? (await findRequestedResource(context, requested, client))
  const scope = narrowScope(readScope(parameters.get('scope')), {
    resourceScope: resource.scopes.map(({ name }) => name),
    boundScope: client.bound_scope ?? undefined,
  })
  const accessToken = issueAccessToken()
  const issued = await insertClientToken(context.db, {
    tokenHash: accessToken.hash,
    clientId: client.id,
    clientVersion,
    resourceId: resource.id,
    resourceVersion: recalled?.version,
    scope: scope.join(' '),
    dpopJkt,
    accessTokenSeconds: context.config.accessTokenSeconds,
  })
  if (issued === undefined) throw changedMeanwhile('client') // or the resource: a second try tells
  if (recalled === undefined) keepResource(context, resource)
  return tokenResponse(context, client.id, accessToken, issued, undefined)
}
