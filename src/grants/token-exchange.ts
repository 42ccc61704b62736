import type { Context } from '../context.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { required } from '../protocol/parameters.ts'
import {
  ACCESS_TOKEN_TYPE,
  judgeUpstream,
  readTokenExchange,
  readUpstreamTarget,
  type TokenExchangeResponse,
  type UpstreamOption,
  type UpstreamRefusal,
  type UpstreamTarget,
} from '../protocol/token-exchange.ts'
import { lookUpAccessToken } from '../store/access-token.ts'
import type { ResourceRow } from '../store/database.ts'
import { listUpstreamOptions } from '../store/resource-upstream.ts'
import { findUpstreamHandle, insertUpstreamHandle } from '../store/upstream-handle.ts'
import { accessTokenHash, mayBePresented } from '../tokens/access-token.ts'
import { CREDENTIAL_PREFIXES, credentialHash, hashSecret, issueCredential } from '../tokens/secret.ts'
import { freshUpstreamToken } from '../users/upstream-token.ts'
import type { ResourceServerGrant } from './grant.ts'

/** By what a resource server acts: the grant of a person, and for a handle the one provider that it is for. */
interface Subject {
  familyId: string
  userId: string
  clientId: string
  handleFor?: string
}

/**
 * Token exchange (RFC 8693): a resource server shows the access token that it was shown, or its handle, and gets an
 * access token of an identity provider for the same person. The key of a token that is bound isn't asked for: the
 * resource server has judged the proof, and proves with its own credentials who it is.
 */
export const tokenExchange: ResourceServerGrant = async (context, { resource, parameters }) => {
  const request = readTokenExchange(parameters)
  const subject =
    request.subjectTokenType === ACCESS_TOKEN_TYPE
      ? await findTokenSubject(context, resource, request.subjectToken)
      : await findHandleSubject(context, resource, request.subjectToken)
  if (typeof subject === 'string') {
    throw new OAuthError('invalid_request', 'subject_token is not valid', `subject_token_${subject}`)
  }
  return exchange(context, resource, subject, request.target, request.offline)
}

/** A handle as a refresh token (RFC 6749 §6), as libraries send it: it stays the same. */
export const upstreamHandle: ResourceServerGrant = async (context, { resource, parameters }) => {
  const subject = await findHandleSubject(context, resource, required(parameters, 'refresh_token'))
  if (typeof subject === 'string') {
    throw new OAuthError('invalid_grant', 'refresh token is not valid', `upstream_${subject}`)
  }
  return exchange(context, resource, subject, readUpstreamTarget(parameters), false)
}

/** Whether a refresh token is a handle, which no client ever gets. */
export function isUpstreamHandle(refreshToken: string | undefined): boolean {
  return refreshToken?.startsWith(CREDENTIAL_PREFIXES.upstreamHandle) === true
}

/** The grant behind an access token that was issued for this resource server; or why there is none. */
async function findTokenSubject(context: Context, resource: ResourceRow, presented: string): Promise<Subject | string> {
  const tokenHash = await accessTokenHash(context, presented)
  if (tokenHash === undefined || !mayBePresented(presented, resource.token_format)) return 'malformed'
  const found = await lookUpAccessToken(context.db, { resourceId: resource.id, tokenHash })
  if (found?.token === undefined) return 'inactive'
  const { familyId, userId, clientId } = found.token
  return familyId === null || userId === null ? 'without_person' : { familyId, userId, clientId }
}

/** The grant behind a handle of this resource server; or why there is none. */
async function findHandleSubject(
  context: Context,
  resource: ResourceRow,
  presented: string,
): Promise<Subject | string> {
  const handleHash = credentialHash('upstreamHandle', presented)
  if (handleHash === undefined) return 'handle_malformed'
  const handle = await findUpstreamHandle(context.db, handleHash, resource.id)
  return handle === undefined ? 'handle_inactive' : { ...handle, handleFor: handle.providerId }
}

/** @param offline whether the resource server asks for a handle */
async function exchange(
  context: Context,
  resource: ResourceRow,
  subject: Subject,
  target: UpstreamTarget,
  offline: boolean,
): Promise<TokenExchangeResponse> {
  const { providerId } = await demandUpstream(context, resource, subject, target)
  const access = await freshUpstreamToken(context, { userId: subject.userId, providerId })
  const option = await demandUpstream(context, resource, subject, target) // what has ended meanwhile gets nothing
  const wantsHandle = offline && option.offline && subject.handleFor === undefined
  const handle = wantsHandle ? await issueHandle(context, subject, providerId) : undefined
  const facts = { resource_id: resource.id, client_id: subject.clientId, family_id: subject.familyId }
  const how = { provider: providerId, handle: subject.handleFor === undefined ? handle && 'issued' : 'used' }
  context.log.info({ event: 'upstream_token_exchanged', ...facts, ...how }, 'upstream token exchanged')
  return {
    access_token: access.accessToken,
    issued_token_type: ACCESS_TOKEN_TYPE,
    token_type: 'Bearer',
    ...(access.expiresInSeconds === undefined ? {} : { expires_in: access.expiresInSeconds }),
    ...(access.scope === undefined ? {} : { scope: access.scope }),
    ...(handle === undefined ? {} : { refresh_token: handle }),
  }
}

/** The one provider that is meant, if the resource server may act there by this grant. @throws {OAuthError} */
async function demandUpstream(
  { db }: Context,
  resource: ResourceRow,
  { familyId, handleFor }: Subject,
  target: UpstreamTarget,
): Promise<UpstreamOption> {
  const options = await listUpstreamOptions(db, { resourceId: resource.id, familyId })
  const usable =
    handleFor === undefined ? options : options.filter((one) => one.providerId === handleFor && one.offline)
  const verdict = judgeUpstream(usable, target)
  if (typeof verdict !== 'string') return verdict
  throw new OAuthError('invalid_target', REFUSALS[verdict], `upstream_${verdict.replaceAll('-', '_')}`)
}

/** What a resource server learns: whether its person, its operator or its own request has to change. */
const REFUSALS: Record<UpstreamRefusal, string> = {
  'not-allowed': 'this resource server may not act there',
  ambiguous: 'audience or resource has to name one identity provider',
  'not-usable': 'this resource server may not act there',
  'not-agreed': 'the person has not agreed to this',
  'no-account': 'the person has to sign in at the identity provider first',
  'sign-in-needed': 'the person has to sign in at the identity provider again',
}

async function issueHandle({ db }: Context, { familyId }: Subject, providerId: string): Promise<string> {
  const handle = issueCredential('upstreamHandle')
  if (await insertUpstreamHandle(db, hashSecret(handle), { familyId, providerId })) return handle
  throw new OAuthError('invalid_request', 'subject_token is not valid', 'subject_token_inactive')
}
