import { createHash } from 'node:crypto'
import type { GrantableRequest } from '../clients/authorization-request.ts'
import { isConfidential } from '../clients/client-policy.ts'
import type { Context } from '../context.ts'
import { type AskingClient, type ConsentQuestion, judgeConsent } from '../protocol/consent.ts'
import { insertAuthorizationCode } from '../store/authorization-code.ts'
import { addConsent, type ConsentKey, findConsent } from '../store/consent.ts'
import type { ResourceUpstream } from '../store/resource-upstream.ts'
import { hashSecret, issueCredential } from '../tokens/secret.ts'

/**
 * What the person has to be asked before the request is granted.
 *
 * @returns `undefined` when an earlier consent covers it
 */
export async function findConsentQuestion(
  context: Context,
  request: GrantableRequest,
  userId: string,
): Promise<ConsentQuestion | undefined> {
  const remembered = await findConsent(context.db, consentKey(request, userId))
  return judgeConsent(askingClient(request), request.scope, remembered, request.prompt)
}

/**
 * The client of a request as far as consent depends on it. Credentials say who a client is only if an operator gave
 * them, or noted its keys: anybody gets a secret at registration, and a document's client proves by its document
 * alone what it is, and so by the places that are named there.
 */
export function askingClient({ client, target }: GrantableRequest): AskingClient {
  return {
    confidential: isConfidential(client) && client.registration === 'operator',
    redirectUri: target.redirectUri,
  }
}

/**
 * A digest of everything on the consent page that the person judges. The form sends it back, so that what is
 * approved is what was seen, also when the client or the resource has been changed in between.
 *
 * @param upstreams where the resource server may act for the person
 */
export function digestQuestion(
  { client, resource, target, scope }: GrantableRequest,
  upstreams: ResourceUpstream[],
): string {
  const asking = [client.id, client.name, client.description.client_uri, target.redirectUri]
  const seen = [...asking, resource.id, resource.name, resource.scopes, scope, upstreams]
  return createHash('sha256').update(JSON.stringify(seen)).digest('base64url')
}

/** Remembers that the person agreed. */
export async function rememberConsent(context: Context, request: GrantableRequest, userId: string): Promise<void> {
  await addConsent(context.db, consentKey(request, userId), request.scope)
}

/**
 * Issues an authorization code for a request that the person has agreed to (RFC 6749 §4.1.2).
 *
 * @param approvedFrom address of the browser, for the person to recognise
 */
export async function issueCode(
  context: Context,
  request: GrantableRequest,
  userId: string,
  approvedFrom: string,
): Promise<string> {
  const code = issueCredential('authorizationCode')
  const { client, resource, target, codeChallenge, scope, dpopJkt } = request
  await insertAuthorizationCode(context.db, {
    codeHash: hashSecret(code),
    clientId: client.id,
    userId,
    resourceId: resource.id,
    redirectUri: target.redirectUri,
    codeChallenge,
    scope,
    dpopJkt,
    approvedFrom,
    seconds: context.config.codeSeconds,
  })
  return code
}

function consentKey(request: GrantableRequest, userId: string): ConsentKey {
  const { client, resource, target } = request
  return {
    userId,
    clientId: client.id,
    resourceId: resource.id,
    redirectUri: target.registeredUri,
    documentDigest: client.document_digest,
  }
}
