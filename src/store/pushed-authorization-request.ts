import { type Kysely, sql } from 'kysely'
import type { Database } from './database.ts'

/** Keeps a pushed request for `seconds`. */
export async function insertPushedRequest(
  db: Kysely<Database>,
  request: { requestHash: Buffer; clientId: string; parameters: ReadonlyMap<string, string> },
  seconds: number,
): Promise<void> {
  await sql`
    insert into pushed_authorization_request (request_hash, client_id, parameters, created_at, expires_at)
    values (${request.requestHash}, ${request.clientId}, ${JSON.stringify([...request.parameters])}::jsonb, now(),
      now() + make_interval(secs => ${seconds}))`.execute(db)
}

/** A pushed request that may still be used. */
export interface PushedRequest {
  parameters: ReadonlyMap<string, string>
  createdAt: Date
}

/** Finds the pushed request of a client (primary key). */
export async function findPushedRequest(
  db: Kysely<Database>,
  requestHash: Buffer,
  clientId: string,
): Promise<PushedRequest | undefined> {
  const { rows } = await sql<{ parameters: [string, string][]; createdAt: Date }>`
    select parameters, created_at as "createdAt" from pushed_authorization_request
    where request_hash = ${requestHash} and client_id = ${clientId} and expires_at > now()`.execute(db)
  return rows[0] && { parameters: new Map(rows[0].parameters), createdAt: rows[0].createdAt }
}
