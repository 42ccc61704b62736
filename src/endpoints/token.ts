import type { RouteHandlerMethod } from 'fastify'
import { authenticateClient, keepClient, recallClient } from '../clients/authenticate.ts'
import { acceptDpopProof, demandDpopProof, readDpopProof } from '../clients/dpop.ts'
import { authenticateResourceServer } from '../clients/resource-server.ts'
import type { Context } from '../context.ts'
import { grantFor, recallingGrantFor, resourceServerGrantFor } from '../grants/index.ts'
import { networkOf } from '../operations/network.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { type Parameters, readParameters, required } from '../protocol/parameters.ts'
import type { ClientRow } from '../store/database.ts'
import type { TokenResponse } from '../tokens/pair.ts'

/** Token endpoint (RFC 6749 §3.2). */
export function token(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const parameters = readParameters(request.body)
    reply.header('cache-control', 'no-store') // RFC 6749 §5.1
    const resourceServerGrant = resourceServerGrantFor(context.config, parameters)
    if (resourceServerGrant !== undefined) {
      const resource = await authenticateResourceServer(context, request.headers.authorization, parameters)
      return reply.send(await resourceServerGrant(context, { resource, parameters }))
    }
    const proof = await readDpopProof(context, request.headers.dpop, { method: 'POST', path: '/token' })
    if (proof !== undefined) reply.header('dpop-nonce', proof.nextNonce) // RFC 9449 §8.2
    if (proof === undefined) {
      const recalled = recallClient(context, request.headers.authorization, parameters)
      const tokens = recalled && (await grantToRecalled(context, recalled, parameters))
      if (tokens !== undefined) return reply.send(tokens)
    }
    const finding = { network: networkOf(request.ip, 48), asItWas: true } // what was granted lives on
    const client = await authenticateClient(context, request.headers.authorization, parameters, finding)
    const grant = grantFor(required(parameters, 'grant_type'), client)
    demandDpopProof(client, proof)
    const dpopJkt = await acceptDpopProof(context, proof)
    const tokens = await grant(context, { client, parameters, dpopJkt })
    keepClient(context, client)
    return reply.send(tokens)
  }
}

/**
 * Answers a client that was here before, and sends no proof, without reading its row again: one statement issues, and only
 * where the row is still what it was.
 *
 * @returns `undefined` when that can't be done, and nothing was: the request takes a fresh look
 */
async function grantToRecalled(
  context: Context,
  client: ClientRow,
  parameters: Parameters,
): Promise<TokenResponse | undefined> {
  try {
    const grant = recallingGrantFor(required(parameters, 'grant_type'), client)
    demandDpopProof(client, undefined)
    return await grant?.(context, { client, clientVersion: client.version, parameters, dpopJkt: undefined })
  } catch (error) {
    if (error instanceof OAuthError) return undefined
    throw error
  }
}
