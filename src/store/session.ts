import { type Kysely, sql } from 'kysely'
import type { Database } from './database.ts'

/** A browser that is signed in. */
export interface Session {
  userId: string
  username: string
  isAdministrator: boolean
  createdAt: Date
}

/**
 * Opens a session; `seconds` is its absolute lifetime.
 *
 * @param user with the password hash that was verified: a change of the password in between wins
 * @returns `false` when the user is disabled, gone, or has another password by now
 */
export async function insertSession(
  db: Kysely<Database>,
  idHash: Buffer,
  user: { id: string; password_hash: string | null },
  seconds: number,
): Promise<boolean> {
  const { rows } = await sql`
    insert into session (id_hash, user_id, created_at, expires_at)
    select ${idHash}, id, now(), now() + make_interval(secs => ${seconds}) from "user"
    where id = ${user.id} and password_hash is not distinct from ${user.password_hash} and disabled_at is null
    returning 1`.execute(db)
  return rows.length === 1
}

/** Finds a living session of a user who is not disabled (primary keys). */
export async function findSession(db: Kysely<Database>, idHash: Buffer): Promise<Session | undefined> {
  const { rows } = await sql<Session>`
    select u.id as "userId", u.username, u.is_administrator as "isAdministrator", s.created_at as "createdAt"
    from session s join "user" u on u.id = s.user_id and u.disabled_at is null
    where s.id_hash = ${idHash} and s.expires_at > now()`.execute(db)
  return rows[0]
}

/** Ends a session. Repeating it is harmless. */
export async function removeSession(db: Kysely<Database>, idHash: Buffer): Promise<void> {
  await db.deleteFrom('session').where('id_hash', '=', idHash).execute()
}
