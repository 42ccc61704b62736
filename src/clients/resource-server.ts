import type { Context } from '../context.ts'
import { readClientCredentials } from '../protocol/client-authentication.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import type { Parameters } from '../protocol/parameters.ts'
import type { ResourceRow } from '../store/database.ts'
import { findResourceById } from '../store/resource.ts'
import { equalHashes, hashSecret, isId } from '../tokens/secret.ts'

/** What a request says of the resource server that sends it. */
export interface PresentedResourceServer {
  resourceId: string
  secretHash: Buffer
}

/**
 * Reads the credentials that `postern resource add` printed, and that no client has. They hold no percent or plus
 * sign, so decoding is right.
 *
 * @throws {OAuthError} `invalid_client`
 */
export function readResourceServer(authorization: string | undefined, parameters: Parameters): PresentedResourceServer {
  const { clientId, clientSecret } = readClientCredentials(authorization, parameters).readings.at(-1) ?? {}
  if (clientId === undefined || !isId(clientId)) throw refused('resource_server_unknown')
  if (clientSecret === undefined) throw refused('resource_server_secret_missing')
  return { resourceId: clientId, secretHash: hashSecret(clientSecret) }
}

/**
 * Demands that the resource server is the one that it says.
 *
 * @param found what is stored of it; `undefined` when there is no such resource server
 * @throws {OAuthError} `invalid_client`
 */
export function demandResourceServer<T extends { secretHash: Buffer }>(
  { secretHash }: PresentedResourceServer,
  found: T | undefined,
): T {
  if (found === undefined) throw refused('resource_server_unknown')
  if (!equalHashes(found.secretHash, secretHash)) throw refused('resource_server_secret_wrong')
  return found
}

/** Finds out which resource server sends a request, and that it is the one. @throws {OAuthError} `invalid_client` */
export async function authenticateResourceServer(
  { db }: Context,
  authorization: string | undefined,
  parameters: Parameters,
): Promise<ResourceRow> {
  const presented = readResourceServer(authorization, parameters)
  const resource = await findResourceById(db, presented.resourceId)
  return demandResourceServer(presented, resource && { ...resource, secretHash: resource.secret_hash })
}

function refused(reason: string): OAuthError {
  return new OAuthError('invalid_client', 'authentication of the resource server failed', reason)
}
