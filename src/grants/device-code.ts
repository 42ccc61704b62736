import type { Context } from '../context.ts'
import { type DeviceCodeVerdict, judgeDeviceCode } from '../protocol/device-code.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { required } from '../protocol/parameters.ts'
import { resourceCandidates } from '../protocol/resource.ts'
import { type DeviceCodeRedemption, notePoll, redeemDeviceCode } from '../store/device-code.ts'
import { findResource } from '../store/resource.ts'
import { tokenResponse } from '../tokens/pair.ts'
import { credentialHash } from '../tokens/secret.ts'
import type { Grant } from './grant.ts'
import { prepareFamily } from './new-family.ts'

/** Device code grant (RFC 8628 §3.4): the device asks again and again, until the person has decided. */
export const deviceCode: Grant = async (context, { client, parameters, dpopJkt }) => {
  const deviceCodeHash = credentialHash('deviceCode', required(parameters, 'device_code'))
  if (deviceCodeHash === undefined) throw new OAuthError('invalid_grant', NOT_VALID, 'device_code_malformed')
  const resource = parameters.get('resource')
  const { family, accessToken, refreshToken } = prepareFamily(context, client, dpopJkt)
  const redemption: DeviceCodeRedemption = {
    deviceCodeHash,
    clientId: client.id,
    resourceCandidates: resource === undefined ? undefined : resourceCandidates(resource),
  }
  const issued = await redeemDeviceCode(context.db, redemption, family)
  if (issued === undefined) throw await refusal(context, redemption)
  const facts = { client_id: client.id, family_id: family.familyId }
  context.log.info({ event: 'device_code_redeemed', ...facts }, 'device code redeemed')
  return tokenResponse(context, client.id, accessToken, issued, refreshToken)
}

const NOT_VALID = 'device code is not valid'

/** Says why there are no tokens (RFC 8628 §3.5). */
async function refusal({ db }: Context, redemption: DeviceCodeRedemption): Promise<OAuthError> {
  const { deviceCodeHash, clientId, resourceCandidates: requested } = redemption
  const code = await notePoll(db, deviceCodeHash, clientId)
  const verdict: DeviceCodeVerdict = judgeDeviceCode(code, clientId)
  if (verdict === 'pending') return new OAuthError('authorization_pending', 'the person has not decided yet')
  if (verdict === 'slow-down') return new OAuthError('slow_down', 'wait five seconds longer between requests')
  if (verdict === 'expired') return new OAuthError('expired_token', 'the device code has expired')
  if (verdict === 'denied') return new OAuthError('access_denied', 'the person denied the request')
  if (verdict === 'refused' && requested && (await findResource(db, requested))?.uri !== code?.resourceUri) {
    return new OAuthError('invalid_target', 'resource is not the one that was approved', 'resource_mismatch')
  }
  return new OAuthError('invalid_grant', NOT_VALID, `device_code_${verdict.replaceAll('-', '_')}`)
}
