import { type Kysely, sql } from 'kysely'
import { DEVICE_CODE_SECONDS, type JudgedDeviceCode, POLL_INTERVAL_SECONDS } from '../protocol/device-code.ts'
import type { IssuedAccessToken, IssuedForEntry } from './access-token.ts'
import type { Database } from './database.ts'
import {
  FAMILY_TERMS,
  NEW_FAMILY,
  type NewFamily,
  type NewFamilyPlaceholders,
  newFamilyArrays,
  newFamilyValues,
  startTokenFamilies,
} from './new-family.ts'
import { isRequested } from './resource.ts'
import { statement } from './statement.ts'

export interface NewDeviceCode {
  deviceCodeHash: Buffer
  userCodeHash: Buffer
  clientId: string
  resourceId: string
  scope: string[]
}

/** Keeps a device code until a person decides. @returns `false` when the user code is in use: take another */
export async function insertDeviceCode(db: Kysely<Database>, code: NewDeviceCode): Promise<boolean> {
  const { rows } = await sql`
    insert into device_code (
      device_code_hash, user_code_hash, client_id, resource_id, scope, status, interval_seconds, created_at, expires_at
    ) values (
      ${code.deviceCodeHash}, ${code.userCodeHash}, ${code.clientId}, ${code.resourceId}, ${code.scope}, 'pending',
      ${POLL_INTERVAL_SECONDS}, now(), now() + make_interval(secs => ${DEVICE_CODE_SECONDS})
    )
    on conflict (user_code_hash) do nothing
    returning 1`.execute(db)
  return rows.length === 1
}

/** What a person is asked about a device. */
export interface OpenedDeviceCode {
  clientId: string
  resourceId: string
  scope: string[]
}

/**
 * Opens a device code for a session: as long as that lasts, nobody else may decide.
 *
 * @param sessionHash hash of the session id
 * @returns `undefined` when there is no such code, it is decided or over, or another session has opened it
 */
export async function openDeviceCode(
  db: Kysely<Database>,
  userCodeHash: Buffer,
  sessionHash: Buffer,
): Promise<OpenedDeviceCode | undefined> {
  const { rows } = await sql<OpenedDeviceCode>`
    update device_code set opened_by = ${sessionHash}
    where user_code_hash = ${userCodeHash} and status = 'pending' and expires_at > now()
      and (opened_by is null or opened_by = ${sessionHash} or not exists (
        select from session where id_hash = opened_by and session.expires_at > now() -- signed out, to use another account
      ))
    returning client_id as "clientId", resource_id as "resourceId", scope`.execute(db)
  return rows[0]
}

/** Finds a pending code that the session has opened. */
export async function findOpenedDeviceCode(
  db: Kysely<Database>,
  key: { userCodeHash: Buffer; sessionHash: Buffer },
): Promise<OpenedDeviceCode | undefined> {
  const { rows } = await sql<OpenedDeviceCode>`
    select client_id as "clientId", resource_id as "resourceId", scope from device_code
    where user_code_hash = ${key.userCodeHash} and opened_by = ${key.sessionHash} and status = 'pending'
      and expires_at > now()`.execute(db)
  return rows[0]
}

/**
 * Decides for the session that opened the code.
 *
 * @param decision its scope is what the person was shown, and the most that is granted; `from` is the address of the
 *   browser
 * @returns `false` when it may not, or no longer
 */
export async function decideDeviceCode(
  db: Kysely<Database>,
  decision: {
    userCodeHash: Buffer
    sessionHash: Buffer
    userId: string
    approved: boolean
    scope: string[]
    from: string
  },
): Promise<boolean> {
  const { rows } = await sql`
    update device_code set status = ${decision.approved ? 'approved' : 'denied'}, user_id = ${decision.userId},
      scope = ${decision.scope}, approved_at = now(), approved_from = ${decision.from}
    where user_code_hash = ${decision.userCodeHash} and status = 'pending' and expires_at > now()
      and opened_by = ${decision.sessionHash}
    returning 1`.execute(db)
  return rows.length === 1
}

/** What a token request says of a device code. */
export interface DeviceCodeRedemption {
  deviceCodeHash: Buffer
  clientId: string
  /** forms of the requested resource, the best first; `undefined` when none was requested */
  resourceCandidates: string[] | undefined
}

/**
 * Redeems an approved device code and starts its token family, in one statement. One of any number of concurrent
 * polls wins.
 *
 * @returns `undefined` when nothing was redeemed and nothing changed
 */
export async function redeemDeviceCode(
  db: Kysely<Database>,
  { deviceCodeHash, clientId, resourceCandidates }: DeviceCodeRedemption,
  family: NewFamily,
): Promise<IssuedAccessToken | undefined> {
  const values = { deviceCodeHash, clientId, resources: resourceCandidates?.join(' ') ?? null }
  const [issued] = await redeemCodes(db, { ...newFamilyValues([family]), ...values })
  return issued
}

const redeemCodes = statement<
  IssuedForEntry,
  keyof NewFamilyPlaceholders | 'deviceCodeHash' | 'clientId' | 'resources'
>((v) =>
  startTokenFamilies(sql`
    update device_code d set status = 'redeemed'
    from client c, "user" u, resource r, unnest(${newFamilyArrays(v)}) with ordinality as p (${NEW_FAMILY}, entry)
    where d.device_code_hash = ${v.deviceCodeHash}
      and d.client_id = ${v.clientId}
      and d.status = 'approved'
      and d.expires_at > now()
      and c.id = d.client_id and c.disabled_at is null and c.created_at <= d.created_at
      and u.id = d.user_id and u.disabled_at is null
      and r.id = d.resource_id
      and ${isRequested(sql`${v.resources}::text`)}
    returning p.*, d.client_id, d.user_id, d.resource_id, d.scope as granted_scope, d.approved_at, d.approved_from,
      ${FAMILY_TERMS}`),
)

/** A device code with the resource that it is for. */
export interface StoredDeviceCode extends JudgedDeviceCode {
  resourceUri: string | null
}

/** Notes a poll, and says what is known of the code; one that comes too early lengthens the interval (RFC 8628 §3.5). */
export async function notePoll(
  db: Kysely<Database>,
  deviceCodeHash: Buffer,
  clientId: string,
): Promise<StoredDeviceCode | undefined> {
  const { rows } = await sql<StoredDeviceCode>`
    with before as (
      select device_code_hash, coalesce(polled_at + make_interval(secs => interval_seconds) > now(), false) as early
      from device_code where device_code_hash = ${deviceCodeHash} and client_id = ${clientId}
      for no key update
    ), polled as (
      update device_code d set
        polled_at = now(),
        interval_seconds = d.interval_seconds + case when before.early then ${POLL_INTERVAL_SECONDS}::integer else 0 end
      from before where d.device_code_hash = before.device_code_hash
    )
    select d.client_id as "clientId", d.status, d.expires_at <= now() as expired, coalesce(before.early, false) as early,
      r.uri as "resourceUri"
    from device_code d left join before using (device_code_hash) left join resource r on r.id = d.resource_id
    where d.device_code_hash = ${deviceCodeHash}`.execute(db)
  return rows[0]
}
