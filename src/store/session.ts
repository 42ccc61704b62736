import { type Kysely, sql } from 'kysely'
import type { Database } from './database.ts'
import { statement } from './statement.ts'

/** A browser that is signed in. */
export interface Session {
  userId: string
  username: string
  isAdministrator: boolean
  createdAt: Date
  /** since the person proved who they are */
  ageSeconds: number
}

/** Where a session begins: for the person to recognise it. */
export interface SessionOrigin {
  /** the browser's own words */
  userAgent: string | undefined
  address: string
  /** the identity provider that the person signed in with; `undefined`: with the password */
  providerId?: string
}

/**
 * Opens a session; `seconds` is its absolute lifetime.
 *
 * @param user with the password hash that was verified: a change of the password in between wins
 * @returns `false` when the user is disabled, gone, or has another password by now, or no account any more at the
 *   provider where the session begins (which is locked for as long, so that unlinking it ends the session)
 */
export async function insertSession(
  db: Kysely<Database>,
  idHash: Buffer,
  user: { id: string; password_hash: string | null },
  seconds: number,
  origin: SessionOrigin,
): Promise<boolean> {
  const { providerId } = origin
  const linked = sql`exists (
    select from upstream_account a where a.user_id = u.id and a.provider_id = ${providerId} for key share
  )`
  const { rows } = await sql`
    insert into session (id_hash, user_id, user_agent, address, provider_id, created_at, expires_at)
    select ${idHash}, id, ${origin.userAgent?.slice(0, 300) ?? null}, ${origin.address}, ${providerId ?? null},
      now(), now() + make_interval(secs => ${seconds})
    from "user" u
    where id = ${user.id} and password_hash is not distinct from ${user.password_hash} and disabled_at is null
      ${providerId === undefined ? sql`` : sql`and ${linked}`}
    returning 1`.execute(db)
  return rows.length === 1
}

const selectSession = statement<Session, 'idHash' | 'passwordSignIn'>(
  ({ idHash, passwordSignIn }) => sql`
    select u.id as "userId", u.username, u.is_administrator as "isAdministrator", s.created_at as "createdAt",
      extract(epoch from now() - s.created_at)::float8 as "ageSeconds"
    from session s join "user" u on u.id = s.user_id and u.disabled_at is null
    where s.id_hash = ${idHash} and s.expires_at > now() and (s.provider_id is not null or ${passwordSignIn})`,
)

/**
 * Finds a living session of a user who is not disabled (primary keys).
 *
 * @param passwordSignIn whether one counts that began with a password
 */
export async function findSession(
  db: Kysely<Database>,
  idHash: Buffer,
  passwordSignIn: boolean,
): Promise<Session | undefined> {
  return (await selectSession(db, { idHash, passwordSignIn }))[0]
}

/** A session as its person sees it. */
export interface OpenSession {
  id: string
  userAgent: string | null
  address: string | null
  /** name of the identity provider that the person signed in with; `null`: with the password */
  providerName: string | null
  createdAt: Date
  /** it is the one that asks */
  isCurrent: boolean
}

/** The living sessions of a user (index on user_id), the newest first. */
export async function listSessions(db: Kysely<Database>, userId: string, currentHash: Buffer): Promise<OpenSession[]> {
  const { rows } = await sql<OpenSession>`
    select s.id, s.user_agent as "userAgent", s.address, p.name as "providerName", s.created_at as "createdAt",
      s.id_hash = ${currentHash} as "isCurrent"
    from session s left join identity_provider p on p.id = s.provider_id
    where s.user_id = ${userId} and s.expires_at > now()
    order by s.created_at desc, s.id`.execute(db)
  return rows
}

/**
 * Ends a session of a user, or all others than the one that asks (index on user_id).
 *
 * @param id `undefined`: all others
 */
export async function removeSessionsOfUser(
  db: Kysely<Database>,
  { userId, currentHash, id }: { userId: string; currentHash: Buffer; id: string | undefined },
): Promise<void> {
  await sql`
    delete from session
    where user_id = ${userId} and ${id === undefined ? sql`id_hash <> ${currentHash}` : sql`id = ${id}`}`.execute(db)
}

/** Ends a session. Repeating it is harmless. */
export async function removeSession(db: Kysely<Database>, idHash: Buffer): Promise<void> {
  await db.deleteFrom('session').where('id_hash', '=', idHash).execute()
}
