import { type ColumnType, type GeneratedAlways, type Kysely, type Selectable, sql } from 'kysely'
import pg from 'pg'
import type { PublicJwk } from '../protocol/client-assertion.ts'
import type { SignInPolicy } from '../protocol/upstream.ts'

/** A scope of a resource, as the consent page shows it. */
export interface ResourceScope {
  name: string
  description: string
}

/** What an access token looks like: a random value, or a JWT (RFC 9068) that a resource server can check by itself. */
export const TOKEN_FORMATS = ['opaque', 'jwt'] as const

export type TokenFormat = (typeof TOKEN_FORMATS)[number]

interface UserTable {
  id: string
  username: string
  username_key: string
  password_hash: string | null
  is_administrator: boolean
  created_at: Date
  disabled_at: Date | null
}

interface SetupLinkTable {
  secret_hash: Buffer
  expires_at: Date
}

interface KnownBrowserTable {
  secret_hash: Buffer
  user_id: string
  expires_at: Date
}

interface SessionTable {
  id_hash: Buffer
  /** not secret: names the session to its person */
  id: ColumnType<string, string | undefined>
  user_id: string
  user_agent: string | null
  address: string | null
  /** `null`: signed in with the password */
  provider_id: string | null
  created_at: Date
  expires_at: Date
}

interface ThrottleTable {
  key: Buffer
  attempts: number
  window_ends_at: Date
}

/** Lifetimes that an operator set for one resource server or client; `null`: as elsewhere. */
export interface Lifetimes {
  access_token_seconds: number | null
  refresh_token_seconds: number | null
  family_seconds: number | null
  refresh_grace_seconds: number | null
}

/** Columns that an insert may leave out. */
type Optional<Row> = { [Column in keyof Row]: ColumnType<Row[Column], Row[Column] | undefined> }

interface ResourceTable extends Optional<Lifetimes> {
  id: string
  uri: string
  name: string | null
  secret_hash: Buffer
  scopes: ResourceScope[]
  is_default: boolean
  token_format: ColumnType<TokenFormat, TokenFormat | undefined>
  created_at: Date
  /** changes with the row */
  version: GeneratedAlways<string>
  incarnation: GeneratedAlways<string>
}

interface ClientTable extends Optional<Lifetimes> {
  id: string
  name: string | null
  secret_hash: Buffer | null
  token_endpoint_auth_method: string
  redirect_uris: string[]
  grant_types: string[]
  default_scope: string[] | null
  bound_scope: string[] | null
  resource_ids: string[] | null
  description: Record<string, unknown>
  registration: 'open' | 'token' | 'operator' | 'document'
  registration_source: string | null
  created_at: Date
  unused_since: Date | null
  disabled_at: Date | null
  dpop_bound_access_tokens: ColumnType<boolean, boolean | undefined>
  require_pushed_authorization_requests: ColumnType<boolean, boolean | undefined>
  /** an operator's word, which comes before the metadata's; `null`: none */
  must_push_requests: ColumnType<boolean | null, boolean | null | undefined>
  registration_token_hash: ColumnType<Buffer | null, Buffer | null | undefined>
  jwks: ColumnType<PublicJwk[] | null, PublicJwk[] | null | undefined>
  jwks_uri: ColumnType<string | null, string | null | undefined>
  token_endpoint_auth_signing_alg: ColumnType<string | null, string | null | undefined>
  token_endpoint_auth_methods: ColumnType<string[] | null, string[] | null | undefined>
  document_expires_at: ColumnType<Date | null, Date | null | undefined>
  document_failed_at: ColumnType<Date | null, Date | null | undefined>
  document_digest: ColumnType<Buffer | null, Buffer | null | undefined>
  /** changes with the row */
  version: GeneratedAlways<string>
}

interface AuthorizationCodeTable {
  code_hash: Buffer
  client_id: string
  user_id: string
  resource_id: string
  redirect_uri: string
  code_challenge: string
  scope: string[]
  created_at: Date
  expires_at: Date
  redeemed_at: Date | null
  dpop_jkt: string | null
  family_id: string | null
  approved_from: string | null
}

interface ConsentTable {
  user_id: string
  client_id: string
  resource_id: string
  redirect_uri: string
  scope: string[]
  granted_at: Date
  document_digest: ColumnType<Buffer | null, Buffer | null | undefined>
}

interface TokenFamilyTable {
  id: string
  client_id: string
  client_incarnation: string
  user_id: string
  resource_id: string
  scope: string[]
  lineage_hash: Buffer | null
  generation: string // int8
  secret_hash: Buffer | null
  superseded_secret_hashes: Buffer[]
  superseded_at: Date[]
  access_token_hash: Buffer
  dpop_jkt: string | null
  dpop_generation: ColumnType<string, string | undefined> // int8
  created_at: Date
  last_used_at: Date
  expires_at: Date
  ends_at: Date
  removal_check_at: Date
  pair_key_id: string | null
  pair_ends_at: Date | null
  approved_at: Date | null
  approved_from: string | null
  revoked_at: Date | null
  revoked_reason: string | null
}

interface PairKeyTable {
  id: string
  key: Buffer
  ends_at: Date
}

interface AccessTokenTable {
  token_hash: Buffer
  family_id: string | null
  client_id: string
  client_incarnation: string
  user_id: string | null
  dpop_jkt: string | null
  resource_id: string
  scope: string
  issued_at: Date
  expires_at: Date
}

interface ServerSecretTable {
  name: string
  value: Buffer
}

interface KeySetTable {
  uri: string
  keys: PublicJwk[] | null
  fetched_at: Date | null
  failed_at: Date | null
  expires_at: Date
}

interface UsedJtiTable {
  key: Buffer
  expires_at: Date
}

interface PushedAuthorizationRequestTable {
  request_hash: Buffer
  client_id: string
  parameters: unknown
  created_at: Date
  expires_at: Date
}

interface DeviceCodeTable {
  device_code_hash: Buffer
  user_code_hash: Buffer
  client_id: string
  resource_id: string
  scope: string[]
  status: 'pending' | 'approved' | 'denied' | 'redeemed'
  opened_by: Buffer | null
  user_id: string | null
  interval_seconds: number
  polled_at: Date | null
  approved_at: Date | null
  approved_from: string | null
  created_at: Date
  expires_at: Date
}

interface SigningKeyTable {
  kid: string
  algorithm: string
  public_jwk: Record<string, unknown>
  private_key: Buffer | null
  sealed: boolean
  longest_token_seconds: ColumnType<number, number | undefined>
  created_at: Date
  signs_from: Date
}

interface IdentityProviderTable {
  id: string
  name: string
  kind: 'openid_connect' | 'github'
  issuer: string
  internal_origin: string | null
  client_id: string
  client_secret: Buffer | null
  sealed_with: Buffer | null
  scope: string[]
  authorization_parameters: Record<string, string>
  username_claim: string
  trusts_email: boolean
  creates_users: boolean
  allowed_domains: string[] | null
  required_claims: SignInPolicy['required_claims']
  keeps_tokens: boolean
  created_at: Date
  disabled_at: Date | null
}

interface UpstreamAccountTable {
  provider_id: string
  subject: string
  user_id: string
  display_name: string
  linked_at: Date
}

interface UpstreamUnlinkingTable {
  user_id: string
  provider_id: string
  unlinked_at: Date
}

interface UpstreamSignInTable {
  state_hash: Buffer
  browser_hash: Buffer
  provider_id: string
  link_user_id: string | null
  continue_query: string
  expires_at: Date
}

interface UpstreamTokenTable {
  user_id: string
  provider_id: string
  access_token: Buffer
  refresh_token: Buffer | null
  sealed_with: Buffer
  scope: string | null
  expires_at: Date | null
  updated_at: Date
  ended_at: Date | null
  refresh_lease: string | null
  refresh_lease_until: Date | null
}

interface ResourceUpstreamTable {
  resource_id: string
  provider_id: string
  offline: boolean
  allowed_at: Date
}

interface UpstreamHandleTable {
  handle_hash: Buffer
  family_id: string
  provider_id: string
  created_at: Date
}

/** All tables; migrations/ say what each is for. */
export interface Database {
  user: UserTable
  setup_link: SetupLinkTable
  known_browser: KnownBrowserTable
  session: SessionTable
  throttle: ThrottleTable
  resource: ResourceTable
  client: ClientTable
  authorization_code: AuthorizationCodeTable
  consent: ConsentTable
  pushed_authorization_request: PushedAuthorizationRequestTable
  device_code: DeviceCodeTable
  token_family: TokenFamilyTable
  pair_key: PairKeyTable
  access_token: AccessTokenTable
  used_jti: UsedJtiTable
  key_set: KeySetTable
  server_secret: ServerSecretTable
  signing_key: SigningKeyTable
  identity_provider: IdentityProviderTable
  upstream_account: UpstreamAccountTable
  upstream_unlinking: UpstreamUnlinkingTable
  upstream_sign_in: UpstreamSignInTable
  upstream_token: UpstreamTokenTable
  resource_upstream: ResourceUpstreamTable
  upstream_handle: UpstreamHandleTable
}

export type ClientRow = Selectable<ClientTable>
export type ResourceRow = Selectable<ResourceTable>
export type UserRow = Selectable<UserTable>
export type IdentityProviderRow = Selectable<IdentityProviderTable>

/** SQLSTATE classes and codes, and socket errors, that mean "not now": the same request may succeed later. */
const PASSING_SQLSTATES = /^(08(?!P01)|53|57|25006|25P03|40001|40P01|55P03|23503)/
const SOCKET_ERRORS: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ENOENT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
])
const DRIVER_MESSAGES =
  /^(Connection terminated|timeout exceeded when trying to connect|timeout expired|Client has encountered a connection error|Client was closed|Query read timeout|Cannot use a pool after calling end|driver has already been destroyed)/i

/**
 * Whether an error says that the database can't serve right now: away, shutting down, out of connections,
 * a deadlock, or a row that another request removed in between (a foreign key: what ours point at can be removed at any
 * time). Never the client's fault.
 */
export function isDatabaseUnavailable(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.some(isDatabaseUnavailable) // both addresses of a host
  if (!(error instanceof Error)) return false
  if (error instanceof DatabaseBusy || isOutdatedPlan(error)) return true
  const { code, syscall } = error as Error & { code?: unknown; syscall?: unknown }
  if (typeof code === 'string') {
    if (SOCKET_ERRORS.has(code)) return syscall !== 'open' // a missing file is a bug, not an outage
    if (code.length === 5) return PASSING_SQLSTATES.test(code)
  }
  return DRIVER_MESSAGES.test(error.message)
}

/** A statement that was not sent, since those before it have not ended in time. */
export class DatabaseBusy extends Error {
  override readonly name = 'DatabaseBusy'
}

/** Whether a statement was planned before its columns changed. Nothing of it was done. */
export function isOutdatedPlan(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.routine === 'RevalidateCachedQuery'
}

/** SQLSTATES after which the connection is gone, or the same work would only be a further burden. */
const NOT_NOW = /^(08|53|57|25P0[34])/

/** Whether an error proves that its statement changed nothing, and smaller ones may do better. */
export function isRolledBack(error: unknown): boolean {
  return error instanceof pg.DatabaseError && !NOT_NOW.test(error.code ?? '08')
}

/** What an error of the driver or of Postgres says, in one line. */
export function databaseProblem(error: unknown): string {
  const reasons = error instanceof AggregateError ? error.errors : [error] // both addresses of a host; itself it says nothing
  return reasons
    .map((reason) => (reason instanceof Error ? reason.message : String(reason)).replaceAll(/\s+/g, ' '))
    .join('; ')
}

/** Asks the database for a sign of life. @throws when it gives none */
export async function pingDatabase(db: Kysely<Database>): Promise<void> {
  await sql`select 1`.execute(db)
}

/** The database's clock, by which everything that is stored is judged. */
export async function readDatabaseClock(db: Kysely<Database>): Promise<Date> {
  const { rows } = await sql<{ now: Date }>`select clock_timestamp() as now`.execute(db)
  return rows[0]?.now as Date
}

/** Version of the server, such as `18.4`. */
export async function readDatabaseVersion(db: Kysely<Database>): Promise<string> {
  const { rows } = await sql<{ server_version: string }>`show server_version`.execute(db)
  return rows[0]?.server_version.split(' ')[0] ?? 'unknown'
}
