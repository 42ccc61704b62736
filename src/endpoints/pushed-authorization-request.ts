import type { RouteHandlerMethod } from 'fastify'
import { authenticateClient } from '../clients/authenticate.ts'
import { judgeAuthorizationRequest } from '../clients/authorization-request.ts'
import { acceptDpopProof, readDpopProof } from '../clients/dpop.ts'
import { countKept } from '../clients/network-limit.ts'
import type { Context } from '../context.ts'
import { networkOf } from '../operations/network.ts'
import { proveRedirectTarget } from '../protocol/authorization-request.ts'
import { bindToKey } from '../protocol/dpop.ts'
import { readParameters } from '../protocol/parameters.ts'
import {
  PUSHED_REQUEST_SECONDS,
  readPushedParameters,
  requestUriFor,
} from '../protocol/pushed-authorization-request.ts'
import { insertPushedRequest } from '../store/pushed-authorization-request.ts'
import { hashSecret, issueCredential } from '../tokens/secret.ts'

/** Pushed authorization request endpoint (RFC 9126 §2): judged as at the authorization endpoint, errors in JSON. */
export function pushedAuthorizationRequest(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const form = readParameters(request.body)
    const proof = await readDpopProof(context, request.headers.dpop, { method: 'POST', path: '/par' })
    if (proof !== undefined) reply.header('dpop-nonce', proof.nextNonce) // RFC 9449 §8.2
    const finding = { network: networkOf(request.ip, 48) }
    const client = await authenticateClient(context, request.headers.authorization, form, finding)
    await countKept(context, finding.network, '/par')
    const parameters = bindToKey(readPushedParameters(form, client.id), await acceptDpopProof(context, proof))
    const target = proveRedirectTarget(client.redirect_uris, parameters)
    await judgeAuthorizationRequest(context, { client, target, sent: parameters, parameters, pushedAt: undefined })
    const reference = issueCredential('pushedRequest')
    const pushed = { requestHash: hashSecret(reference), clientId: client.id, parameters }
    await insertPushedRequest(context.db, pushed, PUSHED_REQUEST_SECONDS)
    return reply
      .code(201)
      .header('cache-control', 'no-store')
      .send({ request_uri: requestUriFor(reference), expires_in: PUSHED_REQUEST_SECONDS })
  }
}
