import { redirectPlace } from './redirect-uri.ts'

/** What the person has to be asked. */
export interface ConsentQuestion {
  /** asked for now, not allowed before */
  newScope: string[]
  /** allowed before, and part of this request */
  grantedScope: string[]
}

/** A client as far as consent depends on it. */
export interface AskingClient {
  /** it proves who it is at the token endpoint, with credentials that an operator gave it or knows */
  confidential: boolean
  redirectUri: string
}

/**
 * Decides whether the person must be asked (OAuth 2.1 §4.1.1, RFC 8252 §8.6).
 *
 * An earlier consent counts only for a client that can be told from others: a public client on loopback
 * or a private-use scheme can be imitated by any program on the device, so there the person decides
 * each time.
 *
 * @param requested scopes of this request, narrowed
 * @param remembered scopes consented to before for this client and resource; `undefined` when there is no such consent
 * @returns `undefined` when consent is given already
 */
export function judgeConsent(
  client: AskingClient,
  requested: readonly string[],
  remembered: readonly string[] | undefined,
  prompt: ReadonlySet<string>,
): ConsentQuestion | undefined {
  const newScope = requested.filter((name) => !remembered?.includes(name))
  const covered = remembered !== undefined && newScope.length === 0
  if (!covered) return { newScope, grantedScope: requested.filter((name) => remembered?.includes(name)) }
  if (canBeToldApart(client) && !prompt.has('consent')) return undefined
  return { newScope: [...requested], grantedScope: [] } // the whole question once more
}

/** Whether nobody else can receive what is sent to this client's redirect URI, or use it. */
export function canBeToldApart(client: AskingClient): boolean {
  return client.confidential || redirectPlace(client.redirectUri).kind === 'web'
}
