import { usernameKey } from './username.ts'

/** Claims about a person (OpenID Connect Core §5.1). Anything may be missing or of another type. */
export type PersonClaims = Readonly<Record<string, unknown>>

/** Whether a text can be the id of a provider: it stands in addresses. */
export function isProviderId(text: string): boolean {
  return /^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/.test(text)
}

/** Whether a text can be a subject: at most 255 characters (OpenID Connect Core §2), each of which can be stored. */
export function isSubject(text: string): boolean {
  return /^[^\p{Cc}\p{Cs}]{1,255}$/u.test(text)
}

/**
 * What the ID token and the userinfo endpoint say of a person; the token, which is signed, comes first. The address
 * and whether it is verified come from the same one of them, or the word of one would count for the address of the
 * other.
 */
export function mergeClaims(stated: PersonClaims, userinfo: PersonClaims): PersonClaims {
  const tellers = [stated, userinfo].filter(({ email }) => email !== undefined)
  const teller = tellers.find(({ email_verified: verified }) => verified !== undefined) ?? tellers[0]
  return { ...userinfo, ...stated, email: teller?.email, email_verified: teller?.email_verified }
}

/** What an operator demands of people who sign in with a provider. */
export interface SignInPolicy {
  /** domains of the verified e-mail address; `null`: any, and none at all */
  allowed_domains: readonly string[] | null
  /** each claim holds one of the values, or is a list that does */
  required_claims: readonly { claim: string; values: readonly string[] }[]
}

/** Decides whether a person may sign in with the account. */
export function judgePerson(
  policy: SignInPolicy,
  claims: PersonClaims,
): 'allowed' | 'domain_not_allowed' | 'claim_missing' {
  const { allowed_domains: domains, required_claims: required } = policy
  if (domains !== null) {
    const domain = verifiedEmail(claims)?.split('@').at(-1)
    if (domain === undefined || !domains.includes(domain)) return 'domain_not_allowed'
  }
  const holds = ({ claim, values }: SignInPolicy['required_claims'][number]) =>
    [claims[claim]].flat().some((value) => isPlain(value) && values.includes(String(value)))
  return required.every(holds) ? 'allowed' : 'claim_missing'
}

/**
 * The e-mail address in lower case, if the provider says that it has verified it (OpenID Connect Core §5.1). One in
 * compatibility forms is none: usernames are compared without them, so it would pass for another one.
 */
export function verifiedEmail(claims: PersonClaims): string | undefined {
  const { email, email_verified: verified } = claims
  if (typeof email !== 'string' || (verified !== true && verified !== 'true')) return undefined // some send a string
  const isPlainAddress = /^[^\s@]+@[^\s@/]+$/.test(email) && email.normalize('NFKC') === email
  return isPlainAddress ? email.toLowerCase() : undefined
}

/**
 * What a provider is to ask the person, of what is demanded: a word that it doesn't know it would refuse.
 *
 * @param supported `prompt_values_supported` of the provider, which few publish
 * @param demanded `login` and `select_account` stand in for each other: both let the person choose who signs in
 */
export function promptFor(issuer: string, supported: unknown, demanded: string | undefined): string[] {
  const known = Array.isArray(supported) ? supported : (KNOWN_PROMPTS[issuer.split('/')[2] ?? ''] ?? ['login'])
  const words = demanded?.split(' ') ?? []
  const understood = words.map((word) =>
    [word, word === 'login' ? 'select_account' : 'login'].find((one) => known.includes(one)),
  )
  return [...new Set(understood.filter((word) => word !== undefined))]
}

/** By host. `login` alone has to be supported by everybody (OpenID Connect Core §15.1). */
const KNOWN_PROMPTS: Record<string, string[]> = {
  'accounts.google.com': ['select_account'],
  'github.com': ['select_account'],
  'login.microsoftonline.com': ['login', 'select_account'],
}

/** How the provider calls the person, to be shown: an address, a name, or else the subject. */
export function displayNameOf(provider: { username_claim: string }, claims: PersonClaims, subject: string): string {
  const names = [claims[provider.username_claim], claims.email, claims.preferred_username, claims.name]
  const visible = names.map((one) => (typeof one === 'string' ? one.replace(/\p{Cc}/gu, '').trim() : ''))
  return (visible.find((one) => one !== '') ?? subject).slice(0, 200)
}

/**
 * Usernames for a new user, the best first. Those after the first hold the provider's id, as does every one that
 * looks like an e-mail address which nobody has verified: it could be somebody else's, and a provider that is trusted
 * for addresses would link that person to it. So does one with a slash, which could be what another provider's people
 * are called.
 *
 * @param suffix nobody can know it before: somebody who has taken all other names keeps nobody out
 */
export function usernameCandidates(
  provider: { id: string; username_claim: string; trusts_email: boolean },
  claims: PersonClaims,
  subject: string,
  suffix: string,
): string[] {
  const email = provider.trusts_email ? verifiedEmail(claims) : undefined
  const claimed = claims[provider.username_claim]
  const name = typeof claimed === 'string' ? claimed.trim() : ''
  const key = usernameKey(name) // also when the signs are written with others
  const looksLikeAddress = key?.includes('@') && name.toLowerCase() !== email
  const plain = [email, looksLikeAddress || key?.includes('/') ? undefined : name]
  const marked = [name, subject, suffix].map((one) => `${one}/${provider.id}`)
  return [...plain, ...marked].filter(
    (one): one is string => one !== undefined && !one.startsWith('/') && usernameKey(one) !== undefined,
  )
}

function isPlain(value: unknown): value is string | number | boolean {
  return ['string', 'number', 'boolean'].includes(typeof value)
}
