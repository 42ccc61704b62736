import type { Context } from '../context.ts'
import { type AuthorizationCodeVerdict, judgeAuthorizationCode } from '../protocol/authorization-code.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { required } from '../protocol/parameters.ts'
import { challengeOf } from '../protocol/pkce.ts'
import { resourceCandidates } from '../protocol/resource.ts'
import { findAuthorizationCode, type Redemption, redeemAuthorizationCode } from '../store/authorization-code.ts'
import { findResource } from '../store/resource.ts'
import { revokeTokenFamily } from '../store/token-family.ts'
import { tokenResponse } from '../tokens/pair.ts'
import { credentialHash } from '../tokens/secret.ts'
import { changedMeanwhile, type RecallingGrant } from './grant.ts'
import { prepareFamily } from './new-family.ts'

/** Authorization code grant (RFC 6749 §4.1.3, RFC 7636 §4.5): one statement redeems the code and starts the family. */
export const authorizationCode: RecallingGrant = async (context, { client, clientVersion, parameters, dpopJkt }) => {
  const { db } = context
  const codeHash = credentialHash('authorizationCode', required(parameters, 'code'))
  const codeChallenge = challengeOf(required(parameters, 'code_verifier'))
  if (codeHash === undefined) throw new OAuthError('invalid_grant', NOT_VALID, 'code_malformed')
  if (codeChallenge === undefined) throw new OAuthError('invalid_grant', NOT_VALID, 'code_verifier_malformed')
  const resource = parameters.get('resource')
  const { family, accessToken, refreshToken } = prepareFamily(context, client, dpopJkt)
  const redemption: Redemption = {
    codeHash,
    clientId: client.id,
    clientVersion,
    redirectUri: parameters.get('redirect_uri'),
    codeChallenge,
    resourceCandidates: resource === undefined ? undefined : resourceCandidates(resource),
    dpopJkt,
  }
  const issued = await redeemAuthorizationCode(db, { ...redemption, family })
  if (issued === undefined && clientVersion !== undefined) throw changedMeanwhile('client')
  if (issued === undefined) throw await refusal(context, redemption)
  context.log.info({ event: 'code_redeemed', client_id: client.id, family_id: family.familyId }, 'code redeemed')
  return tokenResponse(context, client.id, accessToken, issued, refreshToken)
}

const NOT_VALID = 'authorization code is not valid'

/** Finds out why nothing was redeemed, and ends the family of a replayed code. */
async function refusal({ db, log }: Context, redemption: Redemption): Promise<OAuthError> {
  const code = await findAuthorizationCode(db, redemption.codeHash)
  const verdict: AuthorizationCodeVerdict = judgeAuthorizationCode(code, redemption)
  if (verdict === 'replayed' && code !== undefined && code.familyId !== null) {
    const ended = await revokeTokenFamily(db, code.familyId, 'code_replayed')
    log.warn(
      { event: 'code_replayed', client_id: redemption.clientId, family_id: code.familyId, ended },
      'code replayed',
    )
  }
  const { resourceCandidates: requested } = redemption
  if (verdict === 'refused' && requested && (await findResource(db, requested))?.uri !== code?.resourceUri) {
    return new OAuthError('invalid_target', 'resource is not the one that was authorized', 'resource_mismatch')
  }
  return new OAuthError('invalid_grant', NOT_VALID, `code_${verdict.replaceAll('-', '_')}`)
}
