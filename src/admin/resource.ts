import type { Config } from '../config.ts'
import type { Context } from '../context.ts'
import { protectedResourceMetadata } from '../protocol/metadata.ts'
import { canonicalResource, resourceCandidates } from '../protocol/resource.ts'
import { isScopeName, readScope } from '../protocol/scope.ts'
import type { ResourceRow, ResourceScope, TokenFormat } from '../store/database.ts'
import {
  findResource,
  insertResource,
  listResources,
  type ResourceChanges,
  removeResource,
  setResourceSecret,
  updateResource,
} from '../store/resource.ts'
import { listResourceUpstreams, type ResourceUpstream } from '../store/resource-upstream.ts'
import { noteConfiguredLifetime } from '../store/signing-key.ts'
import { hashSecret, isId, issueCredential, randomId } from '../tokens/secret.ts'
import { withDatabase } from './database.ts'
import { AdminError, type Answer, count, facts, instant, printable, shorten, table } from './output.ts'
import { type LifetimeOptions, lifetimeFacts, lifetimesJson, readLifetimes } from './policy.ts'
import { changeUpstreams, readUpstreams, type UpstreamOptions } from './resource-upstream.ts'

/** Options of `postern resource add`. */
export interface ResourceOptions {
  name?: string
  scope?: string[]
  default?: boolean
  tokenFormat?: TokenFormat
}

/** `postern resource add` */
export async function resourceAdd(config: Config, typed: string, options: ResourceOptions): Promise<Answer> {
  const uri = canonicalResource(typed)
  if (uri === undefined) {
    throw new AdminError(
      `${typed} can't be a resource server: it takes an https or http URL, without user, password and #fragment.`,
    )
  }
  const scopes = readScopes(options.scope ?? [])
  const secret = issueCredential('resourceSecret')
  const name = printable(options.name ?? '').trim() || null
  const { added, twin } = await withDatabase(config, async (db) => {
    const resource = {
      id: randomId(),
      uri,
      name,
      secretHash: hashSecret(secret),
      scopes,
      tokenFormat: options.tokenFormat ?? 'opaque',
      isDefault: options.default === true,
    }
    if (!(await insertResource(db, resource))) {
      throw new AdminError(
        `${uri} has been added before: postern resource rotate-secret ${uri} makes a new secret, postern resource remove ${uri} takes it away.`,
      )
    }
    await noteConfiguredLifetime(db, config.accessTokenSeconds)
    const added = await demandResource(db, uri)
    return { added, twin: await findResource(db, resourceCandidates(uri).slice(1)) }
  })
  const metadata = metadataOf(config, added)
  const written = uri === typed ? '' : ` (written in its one form; you typed ${typed})`
  return {
    json: {
      resource: uri,
      client_id: added.id,
      client_secret: secret,
      scopes: scopes.map(({ name }) => name),
      protected_resource_metadata: metadata.document,
    },
    text: [
      `Added ${uri}${written}.`,
      ...(added.is_default ? ['It is the default: tokens are for it when a client names no resource.'] : []),
      ...(twin === undefined
        ? []
        : [`Mind that ${twin.uri} has been added too; from now on the slash decides which one is meant.`]),
      '',
      'The resource server asks with these whether a token holds. The secret is shown this once:',
      ...facts({ introspection: `${config.issuer}/introspect`, client_id: added.id, client_secret: secret }),
      ...(added.token_format === 'jwt' ? ['', ...offlineChecks(config, uri)] : []),
      '',
      `It serves this document at ${metadata.url}`,
      ...JSON.stringify(metadata.document, undefined, 2)
        .split('\n')
        .map((line) => `  ${line}`),
      '',
      'and answers requests that have no token that holds with status 401 and this header:',
      `  WWW-Authenticate: Bearer resource_metadata="${metadata.url}"`,
      '',
      `Then this checks whether clients can connect: postern doctor ${uri}`,
    ],
  }
}

/** `postern resource list` */
export async function resourceList(config: Config): Promise<Answer> {
  const { resources, upstreams } = await withDatabase(config, async (db) => {
    const resources = await listResources(db)
    return { resources, upstreams: await Promise.all(resources.map(({ id }) => listResourceUpstreams(db, id))) }
  })
  const rows = resources.map((resource, index) => [
    resource.uri,
    shorten(resource.name ?? ''),
    resource.scopes.map(({ name }) => name).join(' '),
    resource.is_default ? 'yes' : '',
    upstreamText(upstreams[index] ?? []),
    resource.id,
    instant(resource.created_at),
  ])
  return {
    json: resources.map((resource, index) => ({
      ...resourceJson(resource, upstreams[index] ?? []),
      created_at: resource.created_at,
      protected_resource_metadata: metadataOf(config, resource).document,
    })),
    text: table(
      ['RESOURCE', 'NAME', 'SCOPES', 'DEFAULT', 'UPSTREAM', 'CLIENT ID', 'CREATED (UTC)'],
      rows,
      'There is no resource server yet: postern resource add URL',
    ),
  }
}

/** Options of `postern resource set`. */
export interface ResourceChangeOptions extends ResourceOptions, LifetimeOptions, UpstreamOptions {}

/** `postern resource set` */
export async function resourceSet(config: Config, reference: string, options: ResourceChangeOptions): Promise<Answer> {
  const changes: ResourceChanges = {
    ...readLifetimes(options),
    ...(options.name === undefined ? {} : { name: options.name.trim() || null }),
    ...(options.scope === undefined ? {} : { scopes: readScopes(options.scope) }),
    ...(options.tokenFormat === undefined ? {} : { token_format: options.tokenFormat }),
  }
  const isDefault = options.default === true
  const upstreamChanges = readUpstreams(options)
  if (Object.keys(changes).length === 0 && !isDefault && upstreamChanges.length === 0)
    throw new AdminError('Nothing to change was named; see --help.')
  const { resource, upstreams } = await withDatabase(config, async (db) => {
    const { id } = await demandResource(db, reference)
    await changeUpstreams(db, id, upstreamChanges)
    await updateResource(db, id, changes, isDefault, config.accessTokenSeconds)
    return { resource: await demandResource(db, id), upstreams: await listResourceUpstreams(db, id) }
  })
  return {
    json: resourceJson(resource, upstreams),
    text: [
      `Changed ${resource.uri}. Tokens that were issued stay as they are.`,
      ...facts({
        name: resource.name ?? '',
        scopes: resource.scopes.map(({ name }) => name).join(' '),
        'token format': resource.token_format,
        default: resource.is_default ? 'yes' : 'no',
        ...(upstreams.length === 0 ? {} : { upstream: upstreamText(upstreams) }),
        ...lifetimeFacts(resource),
      }),
    ],
  }
}

/** `postern resource rotate-secret` */
export async function resourceRotateSecret(config: Config, reference: string): Promise<Answer> {
  const secret = issueCredential('resourceSecret')
  const resource = await withDatabase(config, async (db) => {
    const resource = await demandResource(db, reference)
    await setResourceSecret(db, resource.id, hashSecret(secret))
    return resource
  })
  return {
    json: { resource: resource.uri, client_id: resource.id, client_secret: secret },
    text: [
      `${resource.uri} has a new secret, and the old one is refused. It is shown this once:`,
      ...facts({ client_id: resource.id, client_secret: secret }),
    ],
  }
}

/** `postern resource remove` */
export async function resourceRemove(config: Config, reference: string): Promise<Answer> {
  const { resource, endedGrants } = await withDatabase(config, async (db) => {
    const resource = await demandResource(db, reference)
    return { resource, endedGrants: (await removeResource(db, resource.id)) ?? 0 }
  })
  return {
    json: { resource: resource.uri, ended_grants: endedGrants },
    text: [`Removed ${resource.uri}; ${count(endedGrants, 'grant')} ended.`],
  }
}

/** Finds a resource server by its URI, in any form, or by its client_id. @throws {AdminError} */
export async function demandResource(db: Context['db'], reference: string): Promise<ResourceRow> {
  const id = reference.toLowerCase()
  const resource = isId(id)
    ? await findResource(db, undefined, [id])
    : await findResource(db, resourceCandidates(reference))
  if (resource === undefined) {
    throw new AdminError(`There is no resource server ${reference}; postern resource list shows all.`)
  }
  return resource
}

/** What a resource server has to check of a token that it doesn't ask about (RFC 9068 §4). */
function offlineChecks(config: Config, uri: string): string[] {
  return [
    'Its tokens are JWTs (RFC 9068), which it may check by itself instead. It accepts one if all of this is so:',
    ...facts({
      signature: `by the key of ${config.issuer}/jwks that kid names, with the alg of that key`,
      typ: 'at+jwt',
      iss: config.issuer,
      aud: uri,
      exp: 'in the future',
      scope: 'holds what the request needs',
      cnf: 'absent, or the request has a DPoP proof with this key (RFC 9449 §7)',
    }),
    'A token that was revoked passes these checks until it expires: ask at introspection where that matters.',
    ...(config.encryptionKey === undefined
      ? ['The keys are not sealed in the database: set POSTERN_ENCRYPTION_KEY (postern serve --help) for that.']
      : []),
  ]
}

function readScopes(definitions: string[]): ResourceScope[] {
  const scopes = definitions.map((definition) => {
    const [name = '', ...description] = definition.split('=')
    return { name, description: printable(description.join('=')).trim() || name }
  })
  for (const [index, { name }] of scopes.entries()) {
    if (!isScopeName(name))
      throw new AdminError(`"${name}" can't be a scope: printable ASCII without spaces, quotes and backslashes.`)
    if (readScope(name) === undefined)
      throw new AdminError(`The scope ${name} belongs to OpenID Connect and means nothing here.`)
    if (scopes.findIndex((other) => other.name === name) !== index)
      throw new AdminError(`The scope ${name} is there twice.`)
  }
  return scopes
}

function metadataOf(config: Config, resource: ResourceRow) {
  const scopes = resource.scopes.map(({ name }) => name)
  return protectedResourceMetadata(resource.uri, resource.name, config.issuer, scopes)
}

/** Such as `company google:offline`. */
function upstreamText(upstreams: ResourceUpstream[]): string {
  return upstreams.map(({ providerId, offline }) => (offline ? `${providerId}:offline` : providerId)).join(' ')
}

function resourceJson(resource: ResourceRow, upstreams: ResourceUpstream[]) {
  return {
    resource: resource.uri,
    client_id: resource.id,
    name: resource.name,
    token_format: resource.token_format,
    ...lifetimesJson(resource),
    scopes: resource.scopes.map(({ name }) => name),
    default: resource.is_default,
    upstream: upstreams.map(({ providerId, offline }) => ({ provider: providerId, offline })),
  }
}
