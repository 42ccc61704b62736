import type { IdentityProviderRow } from '../store/database.ts'
import { isId } from '../tokens/secret.ts'
import { AdminError } from './output.ts'

export const PRESETS = ['google', 'entra', 'github', 'keycloak', 'okta', 'nextcloud', 'generic'] as const
export type PresetName = (typeof PRESETS)[number]

/** What is known of a kind of provider. */
export interface Preset {
  /** for people, on the sign-in page */
  name: string
  kind: IdentityProviderRow['kind']
  /** absent: the operator names it */
  issuer?: string
  scope: string[]
  /** which scope asks for groups, where one does */
  groupScope?: string
  usernameClaim: string
  /** what it takes to be given a refresh token */
  whenTokensAreKept: { scope: string[]; parameters: Record<string, string> }
}

const OPENID: Pick<Preset, 'kind' | 'scope' | 'usernameClaim' | 'whenTokensAreKept'> = {
  kind: 'openid_connect',
  scope: ['openid', 'email', 'profile'],
  usernameClaim: 'preferred_username',
  whenTokensAreKept: { scope: ['offline_access'], parameters: {} }, // OpenID Connect Core §11
}

const PRESET: Record<PresetName, Preset> = {
  google: {
    ...OPENID,
    name: 'Google',
    issuer: 'https://accounts.google.com',
    usernameClaim: 'email',
    whenTokensAreKept: { scope: [], parameters: { access_type: 'offline', prompt: 'consent' } },
  },
  entra: { ...OPENID, name: 'Microsoft' },
  github: {
    ...OPENID,
    name: 'GitHub',
    kind: 'github',
    issuer: 'https://github.com',
    scope: ['read:user', 'user:email'],
    whenTokensAreKept: { scope: [], parameters: {} },
  },
  keycloak: { ...OPENID, name: 'Keycloak' },
  okta: { ...OPENID, name: 'Okta', groupScope: 'groups' },
  nextcloud: { ...OPENID, name: 'Nextcloud', groupScope: 'groups' },
  generic: {
    ...OPENID,
    name: 'Single sign-on',
    whenTokensAreKept: { scope: ['offline_access'], parameters: { prompt: 'consent' } },
  },
}

/** The preset, with the issuer that the options name. @throws {AdminError} when it isn't a usable one */
export function presetWithIssuer(
  name: PresetName,
  { issuer, tenant }: { issuer?: string; tenant?: string },
): Preset & { issuer: string } {
  const preset = PRESET[name]
  if (tenant !== undefined && name !== 'entra') throw new AdminError('--tenant is for the preset entra alone.')
  if (name === 'entra' && issuer === undefined) return { ...preset, issuer: entraIssuer(tenant) }
  const given = issuer ?? preset.issuer
  if (given === undefined) throw new AdminError(`The preset ${name} needs --issuer, ${EXAMPLES[name] ?? ''}.`)
  const problem = issuerProblem(given)
  if (problem !== undefined) throw new AdminError(`--issuer ${problem}.`)
  return { ...preset, issuer: preset.kind === 'github' ? given.replace(/\/$/, '') : given }
}

const EXAMPLES: Partial<Record<PresetName, string>> = {
  keycloak: 'such as https://sso.example.com/realms/staff',
  okta: 'such as https://example.okta.com',
  nextcloud: 'the address of the Nextcloud, such as https://cloud.example.com',
  generic: 'as the provider calls itself in its discovery document',
}

/** Tokens name the tenant by its id; and a tenant that stands for all of them would let everybody in. */
function entraIssuer(tenant: string | undefined): string {
  const id = tenant?.toLowerCase()
  if (id === undefined || !isId(id)) {
    throw new AdminError('The preset entra needs --tenant, the directory (tenant) ID of the organisation: a UUID.')
  }
  return `https://${ENTRA}/${id}/v2.0`
}

const ENTRA = 'login.microsoftonline.com'
const EVERY_TENANT = /^\/(common|organizations|consumers)(\/|$)/i

function issuerProblem(text: string): string | undefined {
  if (!URL.canParse(text)) return 'must be a URL such as https://sso.example.com'
  const url = new URL(text)
  const isLoopback = url.protocol === 'http:' && ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname)
  if (url.protocol !== 'https:' && !isLoopback) {
    return 'must begin with https://; http is for localhost alone (an http address for the server is --internal-url)'
  }
  if (url.host === ENTRA && EVERY_TENANT.test(url.pathname)) {
    return 'stands for every organisation at Microsoft; take --preset entra with the --tenant of yours'
  }
  if (url.username !== '' || url.password !== '') return 'must hold no credentials'
  if (/[?#]/.test(text)) return 'must have no query and no fragment'
  if (url.pathname.endsWith('/.well-known/openid-configuration')) {
    return 'is the address without /.well-known/openid-configuration'
  }
  return undefined
}

/** Why a demand on people would let nobody in, or an offer would help nobody; `undefined` when there is no such thing. */
export function futility(
  provider: Pick<
    IdentityProviderRow,
    'issuer' | 'kind' | 'allowed_domains' | 'trusts_email' | 'required_claims' | 'keeps_tokens'
  >,
): string | undefined {
  const { host } = new URL(provider.issuer)
  const demandsGroup = provider.required_claims.some(({ claim }) => claim === 'groups')
  if (host === ENTRA && provider.allowed_domains !== null) {
    return 'Entra does not say which e-mail addresses it has verified, so --allow-domain would let nobody in. The tenant bounds who may sign in; groups and roles bound it further.'
  }
  if (host === ENTRA && provider.trusts_email) {
    return 'Entra does not say which e-mail addresses it has verified, so --trust-email would link nobody. People link their accounts themselves, on the account page.'
  }
  if (host === 'accounts.google.com' && demandsGroup) {
    return 'Google does not tell groups when people sign in. --require-claim hd=example.com bounds it to the accounts of an organisation.'
  }
  if (provider.kind === 'github' && provider.required_claims.some(({ claim }) => !GITHUB_CLAIMS.includes(claim))) {
    return `GitHub tells ${GITHUB_CLAIMS.join(', ')} alone: nothing else can be demanded.`
  }
  return undefined
}

const GITHUB_CLAIMS = ['preferred_username', 'name', 'email', 'email_verified']
