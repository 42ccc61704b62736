import { createServer as createTcpServer } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { JWK } from 'jose'
import { sql } from 'kysely'
import type { Test } from 'tap'
import { createFetchJson, type Network } from '../../src/clients/fetch-json.ts'
import { registerClient } from '../../src/clients/register.ts'
import { type Config, readConfig } from '../../src/config.ts'
import type { Context } from '../../src/context.ts'
import { createSigningKeys } from '../../src/keys/signing-keys.ts'
import { createLog } from '../../src/operations/log.ts'
import type { ClientAuthenticationMethod } from '../../src/protocol/client-authentication.ts'
import type { ClientKeys } from '../../src/protocol/client-metadata.ts'
import { createServer } from '../../src/server.ts'
import type { ResourceScope, TokenFormat } from '../../src/store/database.ts'
import { insertResource } from '../../src/store/resource.ts'
import { hashSecret, issueCredential, randomId } from '../../src/tokens/secret.ts'
import { createUser } from '../../src/users/create.ts'
import { createPasswordHasher } from '../../src/users/password.ts'
import { createTestDatabase } from './database.ts'

export const RESOURCE = 'https://mcp.example.com/mcp'
export const PASSWORD = 'correct horse battery staple'

/** A running Postern with a database of its own, a user `alice`, and the resource server RESOURCE. */
export interface TestPostern {
  issuer: string
  context: Context
  server: FastifyInstance
  db: Context['db']
  databaseUrl: string
  /** credentials of RESOURCE at introspection */
  resourceServer: { id: string; secret: string }
}

/**
 * Starts Postern on a free port, in this process.
 *
 * @param overrides settings that differ from the defaults; `bare` leaves user and resource server out; `network` is what metadata documents
 *   and key sets are fetched from
 */
export async function startTestPostern(
  t: Test,
  overrides: Partial<Config> = {},
  { bare = false, network }: { bare?: boolean; network?: Network } = {},
): Promise<TestPostern> {
  const { url, db } = await createTestDatabase(t)
  const port = overrides.port ?? (await freePort())
  const issuer = overrides.issuer ?? `http://localhost:${port}`
  const basePath = new URL(issuer).pathname.replace(/\/$/, '')
  const config: Config = { ...readConfig({}), port, issuer, basePath, databaseUrl: url, ...overrides }
  const log = createLog(process.env.TEST_LOG_LEVEL ?? 'silent')
  const keys = createSigningKeys({ config, db, log })
  const fetchJson = createFetchJson(config.metadataDocumentLoopback, network)
  const context: Context = { config, db, fetchJson, keys, log, passwords: await hasher() }
  await keys.tend()
  const server = await createServer(context)
  await server.listen({ host: '127.0.0.1', port })
  t.teardown(() => server.close())
  const postern = { issuer, context, server, db, databaseUrl: url, resourceServer: { id: '', secret: '' } }
  if (!bare) {
    await addUser(postern, 'alice')
    postern.resourceServer = await addResource(postern, RESOURCE, [
      { name: 'read', description: 'Read your notes' },
      { name: 'write', description: 'Change your notes' },
    ])
  }
  return postern
}

/** Adds a user with PASSWORD. */
export async function addUser(postern: TestPostern, username: string): Promise<string> {
  const result = await createUser(postern.context, { username, password: PASSWORD, isAdministrator: false })
  if (result.outcome !== 'created') throw new Error(result.problem)
  return result.user.id
}

/** Adds a resource server. */
export async function addResource(
  postern: TestPostern,
  uri: string,
  scopes: ResourceScope[] = [],
  tokenFormat: TokenFormat = 'opaque',
): Promise<{ id: string; secret: string }> {
  const id = randomId()
  const secret = issueCredential('resourceSecret')
  const added = await insertResource(postern.db, {
    id,
    uri,
    name: null,
    secretHash: hashSecret(secret),
    scopes,
    tokenFormat,
    isDefault: false,
  })
  if (!added) throw new Error(`${uri} was added before`)
  return { id, secret }
}

/** Adds a client as an operator does. */
export async function addClient(
  postern: TestPostern,
  options: {
    redirectUris: string[]
    tokenEndpointAuthMethod?: ClientAuthenticationMethod
    /** of a client that authenticates with `private_key_jwt` */
    keys?: { jwks: JWK[] }
    grantTypes?: string[]
    boundScope?: string[]
    dpopBoundAccessTokens?: boolean
    name?: string
  },
) {
  const metadata = {
    name: options.name ?? 'Test client',
    redirectUris: options.redirectUris,
    tokenEndpointAuthMethod: options.tokenEndpointAuthMethod ?? 'none',
    grantTypes: options.grantTypes ?? ['authorization_code', 'refresh_token'],
    defaultScope: undefined,
    dpopBoundAccessTokens: options.dpopBoundAccessTokens ?? false,
    keys: options.keys as ClientKeys | undefined,
    description: {},
  }
  const bounds = { boundScope: options.boundScope ?? null, resourceIds: null }
  return registerClient(postern.context, metadata, { registration: 'operator', bounds })
}

/** How many rows a table has. */
export async function countRows(postern: Pick<TestPostern, 'db'>, table: string): Promise<number> {
  const { rows } = await sql<{ n: number }>`select count(*)::integer as n from ${sql.table(table)}`.execute(postern.db)
  return rows[0]?.n ?? 0
}

/** A port that nothing listens on. */
export async function freePort(): Promise<number> {
  const server = createTcpServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

let sharedHasher: ReturnType<typeof createPasswordHasher> | undefined
function hasher(): ReturnType<typeof createPasswordHasher> {
  sharedHasher ??= createPasswordHasher()
  return sharedHasher
}
