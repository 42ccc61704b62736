import { createHash } from 'node:crypto'
import type { GrantableRequest } from '../clients/authorization-request.ts'
import type { Context } from '../context.ts'
import { type AskingClient, type ConsentQuestion, judgeConsent } from '../protocol/consent.ts'
import { insertAuthorizationCode } from '../store/authorization-code.ts'
import { addConsent, type ConsentKey, findConsent } from '../store/consent.ts'
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
 * The client as far as consent depends on it. A secret says who a client is only if an operator gave it: anybody
 * gets one at registration.
 */
export function askingClient({ client, target }: GrantableRequest): AskingClient {
  const confidential = client.secret_hash !== null && client.registration === 'operator'
  return { confidential, redirectUri: target.redirectUri }
}

/**
 * A digest of everything on the consent page that the person judges. The form sends it back, so that what is
 * approved is what was seen, also when the client or the resource has been changed in between.
 */
export function digestQuestion({ client, resource, target, scope }: GrantableRequest): string {
  const asking = [client.id, client.name, client.description.client_uri, target.redirectUri]
  const seen = [...asking, resource.id, resource.name, resource.scopes, scope]
  return createHash('sha256').update(JSON.stringify(seen)).digest('base64url')
}

/** Remembers that the person agreed. */
export async function rememberConsent(context: Context, request: GrantableRequest, userId: string): Promise<void> {
  await addConsent(context.db, consentKey(request, userId), request.scope)
}

/** Issues an authorization code for a request that the person has agreed to (RFC 6749 §4.1.2). */
export async function issueCode(context: Context, request: GrantableRequest, userId: string): Promise<string> {
  const code = issueCredential('authorizationCode')
  const { client, resource, target, codeChallenge, scope } = request
  await insertAuthorizationCode(
    context.db,
    {
      codeHash: hashSecret(code),
      clientId: client.id,
      userId,
      resourceId: resource.id,
      redirectUri: target.redirectUri,
      codeChallenge,
      scope,
    },
    context.config.codeSeconds,
  )
  return code
}

function consentKey(request: GrantableRequest, userId: string): ConsentKey {
  const { client, resource, target } = request
  return { userId, clientId: client.id, resourceId: resource.id, redirectUri: target.registeredUri }
}
