import type { Config } from '../config.ts'
import type { IdentityProviderRow } from '../store/database.ts'
import { EncryptionKeyError } from '../tokens/encryption.ts'
import { callbackUri, isSafeAddress, openClientSecret, serverAddress, takesPost } from '../users/identity-provider.ts'
import { bad, describeAnswer, difference, type Finding, good, visit } from './finding.ts'

/** Looks at a provider as a sign-in does, but for the person. `away`: it may be right, but doesn't answer. */
export async function examineProvider(
  config: Config,
  provider: IdentityProviderRow,
): Promise<{ findings: Finding[]; away: boolean }> {
  const secret = openSecret(config, provider)
  if (secret.finding !== undefined) return { findings: [secret.finding], away: false }
  if (provider.kind === 'github') {
    const detail = 'has no discovery document; whether it accepts the client ID and secret shows at the first sign-in'
    return { findings: [good('provider', `${provider.issuer} ${detail}`)], away: false }
  }
  const { issuer } = provider
  const address = serverAddress(provider, `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`)
  const answer = await visit(address)
  if (typeof answer === 'string' || answer.status >= 500) {
    const problem = typeof answer === 'string' ? `can't be reached: ${answer}` : describeAnswer(answer)
    const advice = 'start it, or correct the address; from inside of a container it may take another (--internal-url)'
    return { findings: [bad('discovery', `${address} ${problem}`, advice)], away: true }
  }
  const { document } = answer
  if (document === undefined) {
    const advice = '--issuer is the address that the provider documents as its issuer'
    return { findings: [bad('discovery', `${address} ${describeAnswer(answer)}`, advice)], away: false }
  }
  if (typeof document.issuer !== 'string' || hrefOf(document.issuer) !== hrefOf(issuer)) {
    const detail = `the provider calls itself ${difference(document.issuer, issuer)}`
    const advice = 'add the provider with the name that it gives itself'
    return { findings: [bad('discovery', detail, advice)], away: false }
  }
  const findings = [good('discovery', `${issuer} describes itself`), ...examineDocument(provider, document)]
  if (findings.every(({ ok }) => ok)) findings.push(await examineCredentials(config, provider, document, secret))
  return { findings, away: false }
}

function openSecret(config: Config, provider: IdentityProviderRow): { secret?: string; finding?: Finding } {
  try {
    const sealed = provider.client_secret
    const secret = sealed === null ? undefined : openClientSecret(config, provider.id, sealed)
    return secret === undefined ? {} : { secret }
  } catch (error) {
    if (!(error instanceof EncryptionKeyError)) throw error
    const advice = `give this command the keys that the server has, or name the secret again: postern provider set ${provider.id} --client-secret-file FILE`
    return { finding: bad('client secret', error.message, advice) }
  }
}

/** Those of an API of the provider's need not be listed. */
const STANDARD_SCOPES = ['openid', 'email', 'profile', 'groups', 'offline_access']

/** Where the server itself asks. */
const SERVER_ENDPOINTS = ['token_endpoint', 'jwks_uri', 'userinfo_endpoint']

/** What a sign-in needs of the discovery document (OpenID Connect Discovery §3). */
function examineDocument(provider: IdentityProviderRow, document: Record<string, unknown>): Finding[] {
  const missing = ['authorization_endpoint', 'token_endpoint', 'jwks_uri'].filter(
    (name) => typeof document[name] !== 'string' || !URL.canParse(document[name]),
  )
  if (missing.length > 0) {
    const detail = `the discovery document has no ${missing.join(', no ')}`
    return [bad('endpoints', detail, 'the provider has to be one for OpenID Connect with the authorization code flow')]
  }
  const isUnsafe = (address: string) => !URL.canParse(address) || !isSafeAddress(provider, new URL(address))
  const unsafe = SERVER_ENDPOINTS.map((name) => document[name]).filter(
    (one) => typeof one === 'string' && isUnsafe(one),
  )
  if (unsafe.length > 0) {
    const detail = `the provider names an address that is not https: ${unsafe.join(', ')}`
    return [bad('endpoints', detail, 'nothing is sent there: correct the address at the provider')]
  }
  const findings: Finding[] = []
  const scopes = document.scopes_supported
  const unknown = Array.isArray(scopes)
    ? provider.scope.filter((name) => STANDARD_SCOPES.includes(name) && !scopes.includes(name))
    : []
  if (unknown.length > 0) {
    const detail = `the provider does not list ${unknown.join(', ')} among its scopes`
    findings.push(bad('scopes', detail, `allow it there, or leave it out: postern provider set ${provider.id} --scope`))
  }
  const methods = document.code_challenge_methods_supported
  if (Array.isArray(methods) && !methods.includes('S256')) {
    findings.push(bad('PKCE', 'the provider does not list S256', 'turn on PKCE for the client at the provider'))
  }
  return findings
}

/** Redeems a code that is none: the provider looks at the client first, and refuses the code if that is right. */
async function examineCredentials(
  config: Config,
  provider: IdentityProviderRow,
  document: Record<string, unknown>,
  { secret }: { secret?: string },
): Promise<Finding> {
  const basic = secret !== undefined && !takesPost(document)
  const body = new URLSearchParams({
    grant_type: 'authorization_code',
    code: 'postern-provider-check',
    code_verifier: 'postern-provider-check-postern-provider-check',
    redirect_uri: callbackUri(config, provider.id),
    ...(basic ? {} : { client_id: provider.client_id, ...(secret === undefined ? {} : { client_secret: secret }) }),
  })
  const headers = {
    accept: 'application/json',
    ...(basic ? { authorization: basicOf(provider.client_id, secret) } : {}),
  }
  const address = serverAddress(provider, String(document.token_endpoint))
  const answer = await visit(address, { method: 'POST', body, headers })
  if (typeof answer === 'string' || answer.status >= 500) {
    const problem = typeof answer === 'string' ? `can't be reached: ${answer}` : describeAnswer(answer)
    return bad('token endpoint', `${address} ${problem}`, 'look into the log of the provider')
  }
  if (answer.status === 401 || answer.error === 'invalid_client' || answer.error === 'unauthorized_client') {
    const detail = `the provider does not accept the client ID ${provider.client_id} with this secret`
    const advice = `name the right one: postern provider set ${provider.id} --client-id ID --client-secret-file FILE`
    return bad('client', detail, advice)
  }
  return good('client', `the provider knows the client ${provider.client_id}`)
}

/** RFC 6749 §2.3.1. */
function basicOf(id: string, secret: string): string {
  const encode = (text: string) => new URLSearchParams({ '': text }).toString().slice(1)
  return `Basic ${Buffer.from(`${encode(id)}:${encode(secret)}`).toString('base64')}`
}

function hrefOf(url: string): string {
  return URL.canParse(url) ? new URL(url).href : url
}
