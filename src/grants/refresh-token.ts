import { bindsRefreshToken } from '../clients/dpop.ts'
import type { Context } from '../context.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { required } from '../protocol/parameters.ts'
import { decodeRefreshToken, judgeRefreshToken, type RefreshToken } from '../protocol/refresh-token.ts'
import { resourceCandidates } from '../protocol/resource.ts'
import { narrowScope, readScope } from '../protocol/scope.ts'
import { findResource } from '../store/resource.ts'
import {
  findTokenFamily,
  insertAccessTokenBeside,
  type Rotation,
  revokeTokenFamily,
  rotateTokenFamily,
  type StoredFamily,
} from '../store/token-family.ts'
import { issueAccessToken } from '../tokens/access-token.ts'
import { currentPairKey, derivePair, type TokenResponse, tokenResponse } from '../tokens/pair.ts'
import { decodeCredential, hashSecret, orderedHash } from '../tokens/secret.ts'
import { changedMeanwhile, type RecallingGrant } from './grant.ts'

/** Refresh token grant (RFC 6749 §6): one statement rotates; only when it changes nothing the family is looked at. */
export const refreshToken: RecallingGrant = async (context, { client, clientVersion, parameters, dpopJkt }) => {
  const { config, db } = context
  const content = decodeCredential('refreshToken', required(parameters, 'refresh_token'))
  const presented = content && decodeRefreshToken(content)
  if (presented === undefined) throw new OAuthError('invalid_grant', NOT_VALID, 'refresh_token_malformed')
  const resource = parameters.get('resource')
  const pairKey = currentPairKey()
  const { accessToken, refreshToken: next } = derivePair(presented.lineage, presented.generation + 1, pairKey.key)
  const rotation: Rotation = {
    lineageHash: orderedHash(presented.lineage),
    generation: presented.generation,
    secretHash: hashSecret(presented.secret),
    clientId: client.id,
    clientVersion,
    requestedScope: readScope(parameters.get('scope')),
    resourceCandidates: resource === undefined ? undefined : resourceCandidates(resource),
    newSecretHash: hashSecret(next.secret),
    accessTokenHash: accessToken.hash,
    dpopJkt,
    bindsRefreshToken: bindsRefreshToken(client),
    pairKey,
    lifetimes: config,
  }
  const issued = await rotateTokenFamily(db, rotation)
  if (issued === undefined && clientVersion !== undefined) throw changedMeanwhile('client')
  if (issued === undefined) return judge(context, presented, rotation)
  return tokenResponse(context, client.id, accessToken, issued, next)
}

const NOT_VALID = 'refresh token is not valid'

/** Decides what becomes of a token that rotated nothing: it converges, ends its family, or is refused. */
async function judge(context: Context, presented: RefreshToken, rotation: Rotation): Promise<TokenResponse> {
  const { config, db, log } = context
  const family = await findTokenFamily(db, rotation.lineageHash, config.refreshGraceSeconds)
  const verdict = judgeRefreshToken(family, rotation, rotation.clientId)
  if (family !== undefined && (verdict === 'converge' || verdict === 'current')) {
    return converge(context, family, presented, rotation)
  }
  if (family !== undefined && (verdict === 'replayed' || verdict === 'forged')) {
    const ended = await revokeTokenFamily(db, family.id, `refresh_token_${verdict}`)
    const facts = { client_id: rotation.clientId, family_id: family.id, generation: rotation.generation, ended }
    log.warn({ event: `refresh_token_${verdict}`, ...facts }, `refresh token ${verdict}: its family has ended`)
  }
  throw new OAuthError('invalid_grant', NOT_VALID, `refresh_token_${verdict.replaceAll('-', '_')}`)
}

/**
 * Answers a superseded token inside the grace window with the current pair; a request for another scope than
 * the pair has gets an access token of its own beside the current refresh token.
 *
 * The newest token comes here, too, when the request's scope or resource kept it from rotating: those are
 * refused first, and nothing is burnt.
 */
async function converge(
  context: Context,
  family: StoredFamily,
  presented: RefreshToken,
  rotation: Rotation,
): Promise<TokenResponse> {
  const { config, db, log } = context
  const { resourceCandidates: requested } = rotation
  if (requested !== undefined && (await findResource(db, requested))?.uri !== family.resourceUri) {
    throw new OAuthError('invalid_target', 'resource is not the one that was authorized', 'resource_mismatch')
  }
  const scope = narrowScope(rotation.requestedScope, { resourceScope: family.grantedScope }).join(' ')
  if (family.pairKey === null) throw changedMeanwhile('family')
  const pair = derivePair(presented.lineage, family.generation, family.pairKey)
  const facts = { client_id: rotation.clientId, family_id: family.id, generation: rotation.generation }
  log.info({ event: 'refresh_converged', ...facts, current_generation: family.generation }, 'refresh converged')
  if (family.accessToken?.scope === scope && family.accessToken.dpopJkt === (rotation.dpopJkt ?? null)) {
    return tokenResponse(context, rotation.clientId, pair.accessToken, family.accessToken, pair.refreshToken)
  }
  const accessToken = issueAccessToken()
  const issued = await insertAccessTokenBeside(db, family.id, {
    tokenHash: accessToken.hash,
    scope,
    dpopJkt: rotation.dpopJkt,
    seconds: config.accessTokenSeconds,
  })
  if (issued === undefined) throw changedMeanwhile('family')
  return tokenResponse(context, rotation.clientId, accessToken, issued, pair.refreshToken)
}
