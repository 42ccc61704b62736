import type { RouteHandlerMethod } from 'fastify'
import { authenticateClient } from '../clients/authenticate.ts'
import { acceptDpopProof, demandDpopProof, readDpopProof } from '../clients/dpop.ts'
import { authenticateResourceServer } from '../clients/resource-server.ts'
import type { Context } from '../context.ts'
import { grantFor, resourceServerGrantFor } from '../grants/index.ts'
import { networkOf } from '../operations/network.ts'
import { readParameters, required } from '../protocol/parameters.ts'

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
    const finding = { network: networkOf(request.ip, 48), asItWas: true } // what was granted lives on
    const client = await authenticateClient(context, request.headers.authorization, parameters, finding)
    const grant = grantFor(required(parameters, 'grant_type'), client)
    demandDpopProof(client, proof)
    const dpopJkt = await acceptDpopProof(context, proof)
    const tokens = await grant(context, { client, parameters, dpopJkt })
    return reply.send(tokens)
  }
}
