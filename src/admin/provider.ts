import { readFileSync } from 'node:fs'
import type { Config } from '../config.ts'
import type { Context } from '../context.ts'
import { isProviderId } from '../protocol/upstream.ts'
import type { IdentityProviderRow } from '../store/database.ts'
import {
  findIdentityProvider,
  type IdentityProviderChanges,
  insertIdentityProvider,
  listIdentityProviders,
  type NewIdentityProvider,
  removeIdentityProvider,
  setIdentityProviderDisabled,
  updateIdentityProvider,
} from '../store/identity-provider.ts'
import { callbackUri, sealClientSecret } from '../users/identity-provider.ts'
import { withDatabase } from './database.ts'
import type { Finding } from './finding.ts'
import { AdminError, type Answer, facts, instant, printable, shorten, table } from './output.ts'
import { readSecret } from './password.ts'
import { examineProvider } from './provider-check.ts'
import { futility, type Preset, type PresetName, presetWithIssuer } from './provider-preset.ts'

/** Options of `postern provider set`; a list that is given empty takes back what was there. */
export interface ProviderChangeOptions {
  clientId?: string
  /** name of a file; `-`: asked, or read from standard input */
  clientSecretFile?: string
  public?: boolean
  name?: string
  scope?: string[]
  internalUrl?: string
  trustEmail?: boolean
  createUsers?: boolean
  allowDomain?: string[]
  requireClaim?: string[]
  allowGroup?: string[]
  usernameClaim?: string
  keepTokens?: boolean
  parameter?: string[]
}

/** Options of `postern provider add`. */
export interface ProviderOptions extends ProviderChangeOptions {
  preset: PresetName
  clientId: string
  issuer?: string
  tenant?: string
}

/** `postern provider add` */
export async function providerAdd(config: Config, id: string, options: ProviderOptions): Promise<Answer> {
  if (!isProviderId(id)) {
    throw new AdminError(`"${id}" can't be the id of a provider: lower-case letters, digits and hyphens, at most 32.`)
  }
  const preset = presetWithIssuer(options.preset, options)
  const secretFile = options.public === true ? undefined : (options.clientSecretFile ?? '-')
  if (options.public !== true || options.keepTokens === true) demandEncryptionKey(config)
  // before a secret is asked; the database isn't held while a person types
  const known = await withDatabase(config, (db) => findIdentityProvider(db, id))
  if (known !== undefined) throw isThere(id)
  const settings: NewIdentityProvider = { ...defaultsOf(preset, options), id, ...readChanges(options, []) }
  demandSense(settings)
  const provider = { ...settings, ...(await readClientSecret(config, id, secretFile)) }
  const { findings, away } = await examineProvider(config, asRow(provider))
  const problem = findings.find(({ ok }) => !ok)
  if (problem !== undefined && !away) {
    throw new AdminError(`Nothing was added: ${problem.detail}; ${problem.advice}.`)
  }
  const added = await withDatabase(config, async (db) => {
    if (!(await insertIdentityProvider(db, provider))) throw isThere(id)
    return demandProvider(db, id)
  })
  return {
    json: { ...providerJson(config, added), checked: problem === undefined },
    text: [
      `Added ${added.name}. Register this address at the provider, as the one to which people are sent back:`,
      ...facts({ 'redirect URI': callbackUri(config, id) }),
      ...(problem === undefined ? [] : [`Mind that it could not be checked: ${problem.detail}.`]),
      '',
      ...whoMaySignIn(added),
      `It is on the sign-in page now: ${config.issuer}/login`,
      `This finds out what is wrong when it does not work: postern provider check ${id}`,
    ],
  }
}

/** `postern provider list` */
export async function providerList(config: Config): Promise<Answer> {
  const providers = await withDatabase(config, listIdentityProviders)
  const rows = providers.map((provider) => [
    provider.id,
    shorten(provider.name),
    provider.issuer,
    provider.creates_users ? 'yes' : '',
    provider.trusts_email ? 'yes' : '',
    provider.keeps_tokens ? 'yes' : '',
    provider.disabled_at === null ? '' : instant(provider.disabled_at),
  ])
  return {
    json: providers.map((provider) => providerJson(config, provider)),
    text: table(
      ['ID', 'NAME', 'ISSUER', 'CREATES USERS', 'TRUSTS E-MAIL', 'KEEPS TOKENS', 'DISABLED (UTC)'],
      rows,
      'There is no identity provider yet: postern provider add ID --preset generic --issuer URL --client-id ID',
    ),
  }
}

/** `postern provider show` */
export async function providerShow(config: Config, id: string): Promise<Answer> {
  const provider = await withDatabase(config, (db) => demandProvider(db, id))
  return shown(config, provider, [provider.name])
}

/** `postern provider set` */
export async function providerSet(config: Config, id: string, options: ProviderChangeOptions): Promise<Answer> {
  const before = await withDatabase(config, (db) => demandProvider(db, id))
  if (options.clientSecretFile !== undefined || options.keepTokens === true) demandEncryptionKey(config)
  const settings: IdentityProviderChanges = {
    ...readChanges(options, before.required_claims),
    ...(options.public === true ? { client_secret: null, sealed_with: null } : {}),
  }
  demandSense({ ...before, ...settings })
  const changes = { ...settings, ...(await readClientSecret(config, id, options.clientSecretFile)) }
  if (Object.keys(changes).length === 0) throw new AdminError('Nothing to change was named; see --help.')
  const provider = await withDatabase(config, async (db) => {
    await updateIdentityProvider(db, id, changes)
    return demandProvider(db, id)
  })
  const keepsUnasked =
    options.keepTokens === true && !provider.scope.includes('offline_access') && provider.kind === 'openid_connect'
  return shown(config, provider, [
    `Changed ${provider.name}. It counts from the next sign-in on; who is signed in stays.`,
    ...(keepsUnasked && options.scope === undefined && options.parameter === undefined
      ? ['Mind that providers give a refresh token only if asked: most by --scope offline_access (beside the others).']
      : []),
  ])
}

/** `postern provider disable`, `postern provider enable` */
export async function providerSetDisabled(config: Config, id: string, disabled: boolean): Promise<Answer> {
  const provider = await withDatabase(config, async (db) => {
    await setIdentityProviderDisabled(db, id, disabled)
    return demandProvider(db, id)
  })
  const sentence = disabled
    ? `Disabled ${provider.name}: nobody signs in with it, and nothing is exchanged, until postern provider enable ${id}. Who is signed in stays.`
    : `Enabled ${provider.name}.`
  return { json: providerJson(config, provider), text: [sentence] }
}

/** `postern provider remove` */
export async function providerRemove(config: Config, id: string): Promise<Answer> {
  const provider = await withDatabase(config, async (db) => {
    const provider = await demandProvider(db, id)
    await removeIdentityProvider(db, id)
    return provider
  })
  return {
    json: { id, name: provider.name },
    text: [
      `Removed ${provider.name} with all links to it, the sessions that began there, and its tokens. Users stay: give those without a password one with postern user set-password NAME.`,
    ],
  }
}

/** `postern provider check` */
export async function providerCheck(config: Config, id: string): Promise<Answer & { problems: number }> {
  const provider = await withDatabase(config, (db) => demandProvider(db, id))
  const { findings } = await examineProvider(config, provider)
  const problems = findings.filter(({ ok }) => !ok).length
  return {
    json: { ok: problems === 0, problems, findings },
    text: [
      ...findings.flatMap(describeFinding),
      ...(problems > 0 ? [] : [`It has to know this redirect URI: ${callbackUri(config, id)}`]),
    ],
    problems,
  }
}

function describeFinding({ check, ok, detail, advice }: Finding): string[] {
  return [`${ok ? 'ok     ' : 'PROBLEM'}  ${check}: ${detail}`, ...(advice === null ? [] : [`         → ${advice}`])]
}

/** The provider, which must exist. @throws {AdminError} */
export async function demandProvider(db: Context['db'], id: string): Promise<IdentityProviderRow> {
  const provider = await findIdentityProvider(db, id)
  if (provider === undefined) {
    throw new AdminError(`There is no identity provider ${id}; postern provider list shows all.`)
  }
  return provider
}

function isThere(id: string): AdminError {
  return new AdminError(
    `There is a provider ${id} already: postern provider set ${id} changes it, postern provider remove ${id} takes it away.`,
  )
}

function defaultsOf(preset: Preset & { issuer: string }, options: ProviderOptions): Omit<NewIdentityProvider, 'id'> {
  const { whenTokensAreKept, groupScope } = preset
  const keepsTokens = options.keepTokens === true
  const demandsGroup = options.allowGroup !== undefined
  return {
    name: preset.name,
    kind: preset.kind,
    issuer: preset.issuer,
    internal_origin: null,
    client_id: options.clientId,
    client_secret: null,
    sealed_with: null,
    scope: [
      ...preset.scope,
      ...(demandsGroup && groupScope !== undefined ? [groupScope] : []),
      ...(keepsTokens ? whenTokensAreKept.scope : []),
    ],
    authorization_parameters: keepsTokens ? whenTokensAreKept.parameters : {},
    username_claim: preset.usernameClaim,
    trusts_email: false,
    creates_users: false,
    allowed_domains: null,
    required_claims: [],
    keeps_tokens: keepsTokens,
  }
}

/** What the options name, but for the secret. @param required the claims that are demanded so far @throws {AdminError} */
function readChanges(options: ProviderChangeOptions, required: RequiredClaims): IdentityProviderChanges {
  if (options.public === true && options.clientSecretFile !== undefined) {
    throw new AdminError('--public is for clients without a secret: leave out --client-secret-file.')
  }
  return {
    ...(options.clientId === undefined ? {} : { client_id: demandText('--client-id', options.clientId) }),
    ...(options.name === undefined ? {} : { name: demandText('--name', options.name) }),
    ...(options.scope === undefined ? {} : { scope: readScope(options.scope) }),
    ...(options.internalUrl === undefined ? {} : { internal_origin: readInternalOrigin(options.internalUrl) }),
    ...(options.trustEmail === undefined ? {} : { trusts_email: options.trustEmail }),
    ...(options.createUsers === undefined ? {} : { creates_users: options.createUsers }),
    ...(options.allowDomain === undefined ? {} : { allowed_domains: readDomains(options.allowDomain) }),
    ...(options.requireClaim === undefined && options.allowGroup === undefined
      ? {}
      : { required_claims: readRequiredClaims(options, required) }),
    ...(options.usernameClaim === undefined
      ? {}
      : { username_claim: demandText('--username-claim', options.usernameClaim) }),
    ...(options.keepTokens === undefined ? {} : { keeps_tokens: options.keepTokens }),
    ...(options.parameter === undefined ? {} : { authorization_parameters: readParameters(options.parameter) }),
  }
}

function demandText(option: string, typed: string): string {
  const text = printable(typed).trim()
  if (text === '') throw new AdminError(`${option} is empty.`)
  return text
}

function readScope(typed: string[]): string[] {
  const scope = [...new Set(typed.flatMap((one) => one.split(' ')).filter((name) => name !== ''))]
  if (scope.length === 0) throw new AdminError('--scope is empty.')
  return scope
}

function readInternalOrigin(typed: string): string | null {
  if (typed === '') return null
  const url = URL.canParse(typed) ? new URL(typed) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.href !== `${url.origin}/`) {
    throw new AdminError('--internal-url takes scheme, host and port alone, such as http://keycloak:8080.')
  }
  return url.origin
}

/** Domains in lower case; none is any. */
function readDomains(typed: string[]): string[] | null {
  const domains = given(typed).map((domain) => domain.toLowerCase().replace(/^@/, ''))
  const wrong = domains.find((domain) => !/^([\p{L}\p{N}-]+\.)+[\p{L}\p{N}-]+$/u.test(domain))
  if (wrong !== undefined) throw new AdminError(`"${wrong}" can't be the domain of e-mail addresses.`)
  return domains.length === 0 ? null : domains
}

type RequiredClaims = IdentityProviderRow['required_claims']

/**
 * Values of one claim are alternatives; several claims are demanded together. Each of the two options replaces what
 * it has said before, and nothing of the other: nobody is let in by what wasn't named.
 */
function readRequiredClaims(
  { requireClaim, allowGroup }: ProviderChangeOptions,
  before: RequiredClaims,
): RequiredClaims {
  const required = new Map<string, string[]>()
  const groups = given(allowGroup ?? []).map((group): [string, string] => ['groups', group])
  for (const [claim, value] of [...pairs('--require-claim', requireClaim ?? []), ...groups]) {
    required.set(claim, [...(required.get(claim) ?? []), value])
  }
  const isReplaced = (claim: string) => (claim === 'groups' ? allowGroup : requireClaim) !== undefined
  const kept = before.filter(({ claim }) => !required.has(claim) && !isReplaced(claim))
  return [...kept, ...[...required].map(([claim, values]) => ({ claim, values }))]
}

/** Parameters that Postern itself sets can't be set. */
function readParameters(typed: string[]): Record<string, string> {
  const parameters = Object.fromEntries(pairs('--parameter', typed))
  const own = Object.keys(parameters).find((name) => OWN_PARAMETERS.includes(name))
  if (own !== undefined) throw new AdminError(`--parameter ${own}=… can't be set: Postern does that itself.`)
  return parameters
}

const OWN_PARAMETERS = [
  'client_id',
  'client_secret',
  'code_challenge',
  'code_challenge_method',
  'nonce',
  'redirect_uri',
  'request',
  'request_uri',
  'response_mode',
  'response_type',
  'scope',
  'state',
]

function pairs(option: string, typed: string[]): [string, string][] {
  return given(typed).map((text) => {
    const [name = '', ...value] = text.split('=')
    if (name === '' || value.length === 0) throw new AdminError(`${option} takes NAME=VALUE, not "${text}".`)
    return [name, value.join('=')]
  })
}

function given(typed: string[]): string[] {
  return typed.map((one) => one.trim()).filter((one) => one !== '')
}

/** The sealed secret of a file, or one that is asked; nothing for a public client. */
async function readClientSecret(
  config: Config,
  id: string,
  file: string | undefined,
): Promise<Pick<IdentityProviderChanges, 'client_secret' | 'sealed_with'>> {
  if (file === undefined) return {}
  const secret = file === '-' ? await readSecret('Client secret') : readSecretFile(file)
  const { sealed, sealedWith } = sealClientSecret(config, id, secret)
  return { client_secret: sealed, sealed_with: sealedWith }
}

function readSecretFile(file: string): string {
  let content: string
  try {
    content = readFileSync(file, 'utf8')
  } catch (error) {
    throw new AdminError(`--client-secret-file can't be read: ${(error as Error).message}.`)
  }
  if (content.trim() === '') throw new AdminError('--client-secret-file names an empty file.')
  return content.trim()
}

function demandEncryptionKey(config: Config): void {
  if (config.encryptionKey !== undefined) return
  throw new AdminError(
    'POSTERN_ENCRYPTION_KEY is not set: it seals what providers give us in the database. Make one with openssl rand -base64 32, and set it for the server and for this command.',
  )
}

function demandSense(provider: NewIdentityProvider): void {
  const problem = futility(provider)
  if (problem !== undefined) throw new AdminError(problem)
  if (provider.kind === 'openid_connect' && !provider.scope.includes('openid')) {
    throw new AdminError('--scope has to hold openid: without it the provider does not say who a person is.')
  }
}

/** A row as it will be. */
function asRow(provider: NewIdentityProvider): IdentityProviderRow {
  return { ...provider, created_at: new Date(0), disabled_at: null }
}

/** What the policy means, for an operator who may have expected something else. */
function whoMaySignIn(provider: IdentityProviderRow): string[] {
  const { allowed_domains: domains, required_claims: claims } = provider
  const isBounded = domains !== null || claims.length > 0
  const everybody = isBounded ? 'who meets the demands' : 'who has an account there'
  if (provider.creates_users) return [`Everybody ${everybody} may sign in; the first sign-in creates the user.`]
  return [
    provider.trusts_email
      ? 'Users whose name is the verified e-mail address may sign in; nobody else is created (--create-users).'
      : 'Only users who link their account on the account page may sign in with it (--create-users lets others in).',
  ]
}

function shown(config: Config, provider: IdentityProviderRow, sentences: string[]): Answer {
  const { authorization_parameters: parameters } = provider
  return {
    json: providerJson(config, provider),
    text: [
      ...sentences,
      ...facts({
        id: provider.id,
        name: provider.name,
        issuer: provider.issuer,
        ...(provider.internal_origin === null ? {} : { 'internal address': provider.internal_origin }),
        'client ID': provider.client_id,
        'client secret': provider.client_secret === null ? 'none' : 'sealed in the database',
        'redirect URI': callbackUri(config, provider.id),
        scopes: provider.scope.join(' '),
        ...(Object.keys(parameters).length === 0
          ? {}
          : { parameters: Object.entries(parameters).map(([name, value]) => `${name}=${value}`) }),
        'username claim': provider.username_claim,
        'creates users': yesOrNo(provider.creates_users),
        'trusts e-mail': yesOrNo(provider.trusts_email),
        'keeps tokens': yesOrNo(provider.keeps_tokens),
        'e-mail domains': provider.allowed_domains ?? 'any',
        'required claims': provider.required_claims.map(({ claim, values }) => `${claim}=${values.join(' or ')}`),
        added: `${instant(provider.created_at)} UTC`,
        ...(provider.disabled_at === null ? {} : { disabled: `${instant(provider.disabled_at)} UTC` }),
      }),
      ...whoMaySignIn(provider),
    ],
  }
}

function yesOrNo(value: boolean): string {
  return value ? 'yes' : 'no'
}

function providerJson(config: Config, provider: IdentityProviderRow) {
  return {
    id: provider.id,
    name: provider.name,
    kind: provider.kind,
    issuer: provider.issuer,
    internal_url: provider.internal_origin,
    client_id: provider.client_id,
    public: provider.client_secret === null,
    redirect_uri: callbackUri(config, provider.id),
    scopes: provider.scope,
    parameters: provider.authorization_parameters,
    username_claim: provider.username_claim,
    create_users: provider.creates_users,
    trust_email: provider.trusts_email,
    keep_tokens: provider.keeps_tokens,
    allowed_domains: provider.allowed_domains,
    required_claims: provider.required_claims,
    created_at: provider.created_at,
    disabled: provider.disabled_at !== null,
  }
}
