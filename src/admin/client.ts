import { readFileSync } from 'node:fs'
import { authenticationMethods, mustPush } from '../clients/client-policy.ts'
import { keySetSchema } from '../clients/key-set.ts'
import { registerClient } from '../clients/register.ts'
import type { Config } from '../config.ts'
import { GRANT_TYPES } from '../grants/index.ts'
import type { PublicJwk } from '../protocol/client-assertion.ts'
import {
  type ClientMetadata,
  effectiveClientMetadata,
  type RequestedClientMetadata,
} from '../protocol/client-metadata.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { redirectUriProblem } from '../protocol/redirect-uri.ts'
import { isScopeName, readScope } from '../protocol/scope.ts'
import {
  type ClientChanges,
  findClient,
  listClients,
  removeClient,
  setClientDisabled,
  setClientSecret,
  updateClient,
} from '../store/client.ts'
import type { ClientRow, ResourceRow } from '../store/database.ts'
import { listGrants } from '../store/grant.ts'
import { listResources } from '../store/resource.ts'
import { hashSecret, issueCredential } from '../tokens/secret.ts'
import { withDatabase } from './database.ts'
import { AdminError, type Answer, count, facts, instant, printable, shorten, table } from './output.ts'
import { type LifetimeOptions, lifetimeFacts, lifetimesJson, readLifetimes } from './policy.ts'
import { demandResource } from './resource.ts'

/** Options of `postern client add`. */
export interface ClientOptions {
  name: string
  redirectUri?: string[]
  grant?: string[]
  scope?: string[]
  resource?: string[]
  authMethod?: string
  /** name of a file */
  jwks?: string
  jwksUri?: string
  dpopBound?: boolean
  requirePar?: boolean
}

/** `postern client add` */
export async function clientAdd(config: Config, options: ClientOptions): Promise<Answer> {
  const metadata = readMetadata(config, options)
  const boundScope = metadata.defaultScope ?? null // an operator's word: what the client gets, and the most that it gets
  const { client, resources, unknownScopes } = await withDatabase(config, async (db) => {
    const resources: ResourceRow[] = []
    for (const reference of options.resource ?? []) resources.push(await demandResource(db, reference))
    const resourceIds = resources.length === 0 ? null : [...new Set(resources.map(({ id }) => id))]
    const client = await registerClient({ config, db }, metadata, {
      registration: 'operator',
      bounds: { boundScope, resourceIds },
    })
    const known = (resources.length === 0 ? await listResources(db) : resources).flatMap(({ scopes }) => scopes)
    const unknownScopes = (boundScope ?? []).filter((scope) => !known.some(({ name }) => name === scope))
    return { client, resources, unknownScopes }
  })
  return {
    json: client,
    text: [
      `Added ${client.client_name}.${client.client_secret === undefined ? '' : ' The secret is shown this once:'}`,
      ...facts({
        client_id: client.client_id,
        ...(client.client_secret === undefined ? {} : { client_secret: client.client_secret }),
        'authentication method': client.token_endpoint_auth_method,
        'grant types': client.grant_types.join(' '),
        'redirect URIs': client.redirect_uris,
        scopes: boundScope?.join(' ') ?? 'all',
        resources: resources.length === 0 ? 'all' : resources.map(({ uri }) => uri),
        issuer: config.issuer,
      }),
      ...(unknownScopes.length === 0
        ? []
        : [`Mind that no resource server that it may use has the scope ${unknownScopes.join(', ')}.`]),
    ],
  }
}

/** `postern client list` */
export async function clientList(config: Config): Promise<Answer> {
  const clients = await withDatabase(config, listClients)
  const rows = clients.map((client) => [
    client.id,
    shorten(client.name ?? ''),
    REGISTERED_BY[client.registration],
    String(client.grants),
    instant(client.created_at),
    client.disabled_at === null ? '' : instant(client.disabled_at),
  ])
  return {
    json: clients.map((client) => ({
      client_id: client.id,
      client_name: client.name,
      registration: client.registration,
      grants: client.grants,
      created_at: client.created_at,
      disabled: client.disabled_at !== null,
    })),
    text: table(
      ['CLIENT ID', 'NAME', 'REGISTERED BY', 'GRANTS', 'CREATED (UTC)', 'DISABLED (UTC)'],
      rows,
      'There is no client yet: most register by themselves; postern client add adds one.',
    ),
  }
}

/** `postern client show` */
export async function clientShow(config: Config, id: string): Promise<Answer> {
  const { client, grants, resources } = await withDatabase(config, async (db) => {
    const client = demandClient(id, await findClient(db, id))
    const grants = await listGrants(db, { clientId: id })
    const bound = (await listResources(db)).filter((resource) => client.resource_ids?.includes(resource.id))
    return { client, grants: grants.length, resources: client.resource_ids && bound.map(({ uri }) => uri) }
  })
  return {
    json: {
      ...client.description,
      client_id: client.id,
      client_name: client.name,
      redirect_uris: client.redirect_uris,
      token_endpoint_auth_method: client.token_endpoint_auth_method,
      ...(client.jwks === null ? {} : { jwks: { keys: client.jwks } }),
      ...(client.jwks_uri === null ? {} : { jwks_uri: client.jwks_uri }),
      grant_types: client.grant_types,
      dpop_bound_access_tokens: client.dpop_bound_access_tokens,
      require_pushed_authorization_requests: mustPush(client),
      default_scopes: client.default_scope,
      scopes: client.bound_scope,
      resources,
      ...lifetimesJson(client),
      registration: client.registration,
      registered_from: client.registration_source,
      created_at: client.created_at,
      disabled: client.disabled_at !== null,
      grants,
    },
    text: [
      nameOf(client),
      ...facts({
        client_id: client.id,
        'authentication method': authenticationMethods(client),
        ...(client.jwks_uri === null ? {} : { 'keys at': client.jwks_uri }),
        ...(client.jwks === null ? {} : { keys: client.jwks.map(({ kid, kty }) => kid ?? kty) }),
        'grant types': client.grant_types.join(' '),
        'redirect URIs': client.redirect_uris,
        ...(client.dpop_bound_access_tokens ? { tokens: 'always bound to a key (DPoP)' } : {}),
        scopes: client.bound_scope?.join(' ') ?? 'all',
        resources: resources ?? 'all',
        ...(resources?.length === 0 ? { resources: 'none: all that it was bound to have been removed' } : {}),
        ...(mustPush(client) ? { 'pushed requests': 'required' } : {}),
        ...lifetimeFacts(client),
        'registered by': REGISTERED_BY[client.registration],
        ...(client.registration_source === null ? {} : { 'registered from': client.registration_source }),
        created: `${instant(client.created_at)} UTC`,
        ...(client.disabled_at === null ? {} : { disabled: `${instant(client.disabled_at)} UTC` }),
        grants: String(grants),
        ...descriptionOf(client),
      }),
    ],
  }
}

/** Options of `postern client set`. */
export interface ClientChangeOptions extends LifetimeOptions {
  scope?: string[]
  requirePar?: boolean
}

/** `postern client set` */
export async function clientSet(config: Config, id: string, options: ClientChangeOptions): Promise<Answer> {
  const changes: ClientChanges = {
    ...readLifetimes(options),
    ...(options.scope === undefined ? {} : { bound_scope: readBoundScope(options.scope) }),
    ...(options.requirePar === undefined ? {} : { must_push_requests: options.requirePar }),
  }
  if (Object.keys(changes).length === 0) throw new AdminError('Nothing to change was named; see --help.')
  await withDatabase(config, async (db) => {
    demandClient(id, await findClient(db, id))
    await updateClient(db, id, changes, config.accessTokenSeconds)
  })
  return clientShow(config, id)
}

/** A bound that was given empty is none. */
function readBoundScope(options: string[]): string[] | null {
  const scope = readScopeNames(options)
  return scope.length === 0 ? null : scope
}

/** `postern client rotate-secret` */
export async function clientRotateSecret(config: Config, id: string): Promise<Answer> {
  const secret = issueCredential('clientSecret')
  const client = await withDatabase(config, async (db) => {
    const client = demandClient(id, await findClient(db, id))
    if (client.secret_hash === null) {
      const has =
        client.token_endpoint_auth_method === 'none'
          ? 'is a public client and has no secret'
          : 'has keys, and no secret'
      throw new AdminError(`${nameOf(client)} ${has}.`)
    }
    await setClientSecret(db, id, hashSecret(secret))
    return client
  })
  return {
    json: { client_id: client.id, client_secret: secret, client_secret_expires_at: 0 },
    text: [
      `${nameOf(client)} has a new secret, and the old one is refused. It is shown this once:`,
      ...facts({ client_id: client.id, client_secret: secret }),
    ],
  }
}

/** `postern client disable`, `postern client enable` */
export async function clientSetDisabled(config: Config, id: string, disabled: boolean): Promise<Answer> {
  const client = await withDatabase(config, async (db) => {
    await setClientDisabled(db, id, disabled)
    return demandClient(id, await findClient(db, id))
  })
  const sentence = disabled
    ? `Disabled ${nameOf(client)}: it gets nothing, and no token holds until postern client enable ${id}.`
    : `Enabled ${nameOf(client)}.`
  return { json: { client_id: id, client_name: client.name, disabled }, text: [sentence] }
}

/** `postern client remove` */
export async function clientRemove(config: Config, id: string): Promise<Answer> {
  const { client, endedGrants } = await withDatabase(config, async (db) => {
    const client = demandClient(id, await findClient(db, id))
    return { client, endedGrants: (await removeClient(db, id)) ?? 0 }
  })
  return {
    json: { client_id: id, client_name: client.name, ended_grants: endedGrants },
    text: [`Removed ${nameOf(client)}; ${count(endedGrants, 'grant')} ended.`],
  }
}

/** The client, which must exist. @throws {AdminError} */
export function demandClient(id: string, client: ClientRow | undefined): ClientRow {
  if (client === undefined) throw new AdminError(`There is no client ${id}; postern client list shows all.`)
  return client
}

const REGISTERED_BY = {
  open: 'itself',
  token: 'itself, with the token',
  operator: 'an operator',
  document: 'its metadata document',
} as const

function nameOf(client: ClientRow): string {
  return client.name === null ? `The client ${client.id}` : shorten(client.name, 200)
}

/** Members that a client said about itself, as texts. */
function descriptionOf(client: ClientRow): Record<string, string> {
  return Object.fromEntries(Object.entries(client.description).map(([name, value]) => [name, [value].flat().join(' ')]))
}

/** Scope names, several in an option or each in its own. @throws {AdminError} */
function readScopeNames(options: string[]): string[] {
  const names = options.flatMap((option) => option.split(' ')).filter((name) => name !== '')
  const wrong = names.find((name) => !isScopeName(name))
  if (wrong !== undefined) throw new AdminError(`"${wrong}" can't be a scope.`)
  const meaningless = names.find((name) => readScope(name) === undefined)
  if (meaningless !== undefined) {
    throw new AdminError(`The scope ${meaningless} belongs to OpenID Connect and means nothing here.`)
  }
  return names
}

/** What the options ask for, by the rules of registration; but nothing is left out in silence. */
function readMetadata(config: Config, options: ClientOptions): ClientMetadata {
  if (printable(options.name).trim() === '') throw new AdminError('--name is empty.')
  const { redirectUri = [], grant = [] } = options
  if (redirectUri.length === 0 && (grant.length === 0 || grant.includes('authorization_code'))) {
    throw new AdminError('A client needs --redirect-uri, where people are sent back to.')
  }
  for (const uri of redirectUri) {
    const problem = redirectUriProblem(uri, config.redirectSchemes)
    if (problem !== undefined)
      throw new AdminError(`The redirect URI ${uri} ${problem}${uri.startsWith('http') ? '' : whichSchemes(config)}.`)
  }
  const scope = readScopeNames(options.scope ?? [])
  const metadata = effectiveMetadata(config, {
    client_name: options.name,
    redirect_uris: redirectUri,
    grant_types: grant,
    token_endpoint_auth_method: options.authMethod,
    ...readKeyOptions(options),
    dpop_bound_access_tokens: options.dpopBound,
    require_pushed_authorization_requests: options.requirePar,
    scope: scope.join(' '),
  })
  const missing = grant.find((name) => !metadata.grantTypes.includes(name))
  if (missing !== undefined) throw new AdminError(`The grant ${missing} can't be given to a client.`)
  if (grant.includes('client_credentials') && metadata.tokenEndpointAuthMethod === 'none') {
    throw new AdminError(
      'The grant client_credentials is for clients that prove who they are: leave out --auth-method none.',
    )
  }
  return metadata
}

/** The keys that a client authenticates with: in a file, or where it publishes them. */
function readKeyOptions({ authMethod, jwks, jwksUri }: ClientOptions): RequestedClientMetadata {
  if (authMethod !== 'private_key_jwt') {
    if (jwks === undefined && jwksUri === undefined) return {}
    throw new AdminError('Keys are for --auth-method private_key_jwt.')
  }
  if ((jwks === undefined) === (jwksUri === undefined)) {
    throw new AdminError('--auth-method private_key_jwt needs --jwks FILE or --jwks-uri URL.')
  }
  return jwks === undefined ? { jwks_uri: jwksUri } : { jwks: readKeyFile(jwks) }
}

function readKeyFile(path: string): PublicJwk[] {
  const text = readText(path)
  try {
    const content: { keys: unknown[] } = JSON.parse(text)
    const keys = keySetSchema.parse(content)
    if (keys.length > 0 && keys.length === content.keys.length) return keys
  } catch {} // it is no key set at all
  throw new AdminError(
    `${path} is not a key set ({"keys":[…]}) of public keys that can be used here: RSA of 2048 bits and more, P-256, Ed25519.`,
  )
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new AdminError(`${path} can't be read: ${(error as Error).message}.`)
  }
}

function whichSchemes({ redirectSchemes }: Config): string {
  const allowed = ['https', 'http on loopback', 'names with a dot', ...redirectSchemes].join(', ')
  return `; allowed are ${allowed} (POSTERN_REDIRECT_SCHEMES)`
}

function effectiveMetadata(config: Config, requested: RequestedClientMetadata): ClientMetadata {
  try {
    return effectiveClientMetadata(requested, {
      redirectSchemes: config.redirectSchemes,
      grantTypes: GRANT_TYPES,
      httpKeys: config.metadataDocumentLoopback,
    })
  } catch (error) {
    throw error instanceof OAuthError ? new AdminError(`This client can't be added: ${error.message}.`) : error
  }
}
