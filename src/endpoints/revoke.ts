import type { RouteHandlerMethod } from 'fastify'
import { authenticateClient } from '../clients/authenticate.ts'
import type { Context } from '../context.ts'
import { networkOf } from '../operations/network.ts'
import { readParameters, required } from '../protocol/parameters.ts'
import { decodeRefreshToken } from '../protocol/refresh-token.ts'
import { revokeAccessToken } from '../store/access-token.ts'
import { revokeTokenFamilyOfClient } from '../store/token-family.ts'
import { accessTokenHash } from '../tokens/access-token.ts'
import { decodeCredential, orderedHash } from '../tokens/secret.ts'

/**
 * Revocation endpoint (RFC 7009 §2): an access token ends itself, a refresh token of any generation its family.
 *
 * The prefix tells what a token is, so `token_type_hint` is not needed. An unknown token, or one of another
 * client, is answered like any other (RFC 7009 §2.2), and nothing happens to it.
 */
export function revoke(context: Context): RouteHandlerMethod {
  return async (request, reply) => {
    const parameters = readParameters(request.body)
    const finding = { network: networkOf(request.ip, 48), asItWas: true } // what was granted lives on
    const client = await authenticateClient(context, request.headers.authorization, parameters, finding)
    const token = required(parameters, 'token')
    const tokenHash = await accessTokenHash(context, token)
    const refreshToken = decodeRefreshToken(decodeCredential('refreshToken', token) ?? Buffer.alloc(0))
    if (tokenHash !== undefined) await revokeAccessToken(context.db, tokenHash, client.id)
    if (refreshToken !== undefined) {
      const familyId = await revokeTokenFamilyOfClient(context.db, orderedHash(refreshToken.lineage), client.id)
      if (familyId !== undefined) {
        context.log.info(
          { event: 'revoked_by_client', client_id: client.id, family_id: familyId },
          'family ended by its client',
        )
      }
    }
    return reply.header('cache-control', 'no-store').send()
  }
}
