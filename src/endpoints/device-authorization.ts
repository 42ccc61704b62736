import type { RouteHandlerMethod } from 'fastify'
import { authenticateClient } from '../clients/authenticate.ts'
import { countKept } from '../clients/network-limit.ts'
import { findRequestedResource, grantableScope } from '../clients/requested-resource.ts'
import type { Context } from '../context.ts'
import { networkOf } from '../operations/network.ts'
import {
  DEVICE_CODE_GRANT,
  DEVICE_CODE_SECONDS,
  displayUserCode,
  POLL_INTERVAL_SECONDS,
  userCodeFrom,
} from '../protocol/device-code.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { readParameters } from '../protocol/parameters.ts'
import { readScope } from '../protocol/scope.ts'
import { insertDeviceCode } from '../store/device-code.ts'
import { hashSecret, issueCredential, randomSecret } from '../tokens/secret.ts'

/** Device authorization endpoint (RFC 8628 §3.1). */
export function deviceAuthorization(context: Context): RouteHandlerMethod {
  const verificationUri = `${context.config.issuer}/device`
  return async (request, reply) => {
    const parameters = readParameters(request.body)
    const finding = { network: networkOf(request.ip, 48) }
    const client = await authenticateClient(context, request.headers.authorization, parameters, finding)
    await countKept(context, finding.network, '/device_authorization')
    if (!client.grant_types.includes(DEVICE_CODE_GRANT)) {
      throw new OAuthError('unauthorized_client', 'this client may not use the device code grant')
    }
    const resource = await findRequestedResource(context, parameters.get('resource'), client)
    const scope = grantableScope(readScope(parameters.get('scope')), client, resource)
    const deviceCode = issueCredential('deviceCode')
    const userCode = await keepWithUserCode(context, {
      deviceCodeHash: hashSecret(deviceCode),
      clientId: client.id,
      resourceId: resource.id,
      scope,
    })
    return reply.header('cache-control', 'no-store').send({
      device_code: deviceCode,
      user_code: displayUserCode(userCode),
      verification_uri: verificationUri,
      verification_uri_complete: `${verificationUri}?user_code=${displayUserCode(userCode)}`,
      expires_in: DEVICE_CODE_SECONDS,
      interval: POLL_INTERVAL_SECONDS,
    })
  }
}

type Waiting = Omit<Parameters<typeof insertDeviceCode>[1], 'userCodeHash'>

/** Keeps the device code under a user code that no other device has. */
async function keepWithUserCode({ db }: Context, waiting: Waiting): Promise<string> {
  for (;;) {
    const userCode = userCodeFrom(randomSecret())
    if (userCode === undefined) continue
    if (await insertDeviceCode(db, { ...waiting, userCodeHash: hashSecret(userCode) })) return userCode
  }
}
