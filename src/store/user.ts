import { type Kysely, sql, type Transaction } from 'kysely'
import type { Database, UserRow } from './database.ts'
import { removeFamiliesOf } from './family-removal.ts'

/** A person to be added. */
export interface NewUser {
  id: string
  username: string
  usernameKey: string
  /** `null`: signs in with an identity provider alone */
  passwordHash: string | null
  isAdministrator: boolean
}

/** Adds a user. @returns `false` when the username is taken */
export async function insertUser(db: Kysely<Database>, user: NewUser): Promise<boolean> {
  const { numInsertedOrUpdatedRows } = await db
    .insertInto('user')
    .values({
      id: user.id,
      username: user.username,
      username_key: user.usernameKey,
      password_hash: user.passwordHash,
      is_administrator: user.isAdministrator,
      created_at: sql`now()`,
    })
    .onConflict((conflict) => conflict.column('username_key').doNothing())
    .executeTakeFirst()
  return numInsertedOrUpdatedRows === 1n
}

/**
 * Adds the first user, if there is none. Locks the table against other writers until the transaction ends,
 * so that one of any number of concurrent attempts wins.
 */
export async function insertFirstUser(trx: Transaction<Database>, user: NewUser): Promise<boolean> {
  await sql`lock table "user" in share row exclusive mode`.execute(trx)
  return (await hasUser(trx)) ? false : insertUser(trx, user)
}

/** Whether any user exists. */
export async function hasUser(db: Kysely<Database>): Promise<boolean> {
  return (await db.selectFrom('user').select('id').limit(1).executeTakeFirst()) !== undefined
}

/** Finds a user by the key of the username (unique index). */
export async function findUser(db: Kysely<Database>, usernameKey: string): Promise<UserRow | undefined> {
  return db.selectFrom('user').selectAll().where('username_key', '=', usernameKey).executeTakeFirst()
}

/** Finds a user (primary key). */
export async function findUserById(db: Kysely<Database>, id: string): Promise<UserRow | undefined> {
  return db.selectFrom('user').selectAll().where('id', '=', id).executeTakeFirst()
}

export async function listUsers(db: Kysely<Database>): Promise<UserRow[]> {
  return db.selectFrom('user').selectAll().orderBy('username_key').execute()
}

/** Disables or enables a user. A disabled user's sessions end; tokens are inactive while it lasts. */
export async function setUserDisabled(db: Kysely<Database>, usernameKey: string, disabled: boolean): Promise<void> {
  await sql`
    with changed as (
      update "user" set disabled_at = ${disabled ? sql`coalesce(disabled_at, now())` : null}
      where username_key = ${usernameKey}
      returning id
    ), ended as (
      delete from session using changed where session.user_id = changed.id and ${disabled}
    )
    select`.execute(db)
}

/**
 * Changes the password; sessions that were opened with the old one end, and so do known browsers.
 *
 * @param from the hash that was verified; `undefined` when an operator changes it, whatever it was
 * @returns whether it was changed
 */
export async function setUserPassword(
  db: Kysely<Database>,
  usernameKey: string,
  passwordHash: string,
  from?: string,
): Promise<boolean> {
  const verified = from === undefined ? sql`` : sql`and password_hash = ${from}`
  const { rows } = await sql`
    with changed as (
      update "user" set password_hash = ${passwordHash} where username_key = ${usernameKey} ${verified} returning id
    ), ended as (
      delete from session using changed where session.user_id = changed.id
    ), forgotten as (
      delete from known_browser using changed where known_browser.user_id = changed.id
    )
    select id from changed`.execute(db)
  return rows.length === 1
}

/**
 * Removes a user with everything that the user granted.
 *
 * @returns how many living grants ended with it; `undefined` when there is no such user
 */
export async function removeUser(db: Kysely<Database>, usernameKey: string): Promise<number | undefined> {
  const { rows } = await sql<{ endedGrants: number }>`
    with removed as (
      delete from "user" where username_key = ${usernameKey} returning id
    ), ${removeFamiliesOf('user_id')}`.execute(db)
  return rows[0]?.endedGrants
}
