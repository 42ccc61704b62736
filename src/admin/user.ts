import type { Config } from '../config.ts'
import { USERNAME_RULE, usernameKey } from '../protocol/username.ts'
import type { UserRow } from '../store/database.ts'
import { findUser, listUsers, removeUser, setUserDisabled, setUserPassword } from '../store/user.ts'
import { createUser } from '../users/create.ts'
import { createPasswordHasher } from '../users/password.ts'
import { withDatabase } from './database.ts'
import { AdminError, type Answer, count, instant, table } from './output.ts'
import { readNewPassword } from './password.ts'

/** Options of `postern user add`. */
export interface UserOptions {
  admin?: boolean
}

/** `postern user add` */
export async function userAdd(config: Config, name: string, options: UserOptions): Promise<Answer> {
  const key = demandKey(name)
  // before the password is asked; the database isn't held while a person types
  const known = await withDatabase(config, (db) => findUser(db, key))
  if (known !== undefined) throw new AdminError(`There is a user ${known.username} already.`)
  const password = await readNewPassword()
  const isAdministrator = options.admin === true
  const user = await withDatabase(config, async (db) => {
    const context = { db, passwords: createPasswordHasher() }
    const result = await createUser(context, { username: name, password, isAdministrator })
    if (result.outcome !== 'created') throw new AdminError(result.problem)
    return demandUser(name, await findUser(db, key))
  })
  const role = isAdministrator ? ', an administrator' : ''
  return { json: userJson(user), text: [`Added ${user.username}${role}. Sign in at ${config.issuer}/account`] }
}

/** `postern user list` */
export async function userList(config: Config): Promise<Answer> {
  const users = await withDatabase(config, listUsers)
  const rows = users.map((user) => [
    user.username,
    user.is_administrator ? 'yes' : '',
    user.disabled_at === null ? '' : instant(user.disabled_at),
    instant(user.created_at),
  ])
  return {
    json: users.map(userJson),
    text: table(
      ['NAME', 'ADMIN', 'DISABLED (UTC)', 'CREATED (UTC)'],
      rows,
      'There is no user yet: postern user add NAME --admin',
    ),
  }
}

/** `postern user disable`, `postern user enable` */
export async function userSetDisabled(config: Config, name: string, disabled: boolean): Promise<Answer> {
  const key = demandKey(name)
  const user = await withDatabase(config, async (db) => {
    await setUserDisabled(db, key, disabled)
    return demandUser(name, await findUser(db, key))
  })
  const sentence = disabled
    ? `Disabled ${user.username}: signed out everywhere, and no token holds until postern user enable ${user.username}.`
    : `Enabled ${user.username}.`
  return { json: userJson(user), text: [sentence] }
}

/** `postern user set-password` */
export async function userSetPassword(config: Config, name: string): Promise<Answer> {
  const key = demandKey(name)
  await withDatabase(config, async (db) => demandUser(name, await findUser(db, key)))
  const password = await readNewPassword()
  const passwordHash = await createPasswordHasher().hash(password)
  const user = await withDatabase(config, async (db) => {
    await setUserPassword(db, key, passwordHash)
    return demandUser(name, await findUser(db, key))
  })
  return { json: userJson(user), text: [`Changed the password of ${user.username}, who is signed out everywhere.`] }
}

/** `postern user remove` */
export async function userRemove(config: Config, name: string): Promise<Answer> {
  const key = demandKey(name)
  const endedGrants = await withDatabase(config, (db) => removeUser(db, key))
  if (endedGrants === undefined) throw noUser(name)
  return { json: { name, ended_grants: endedGrants }, text: [`Removed ${name}; ${count(endedGrants, 'grant')} ended.`] }
}

/** The key of the name of a user. @throws {AdminError} when it can't be the name of one */
export function demandKey(name: string): string {
  const key = usernameKey(name)
  if (key === undefined) {
    throw new AdminError(USERNAME_RULE)
  }
  return key
}

/** The user, who must exist. @throws {AdminError} */
export function demandUser(name: string, user: UserRow | undefined): UserRow {
  if (user === undefined) throw noUser(name)
  return user
}

function noUser(name: string): AdminError {
  return new AdminError(`There is no user ${name}; postern user list shows all.`)
}

function userJson(user: UserRow) {
  return {
    id: user.id,
    name: user.username,
    admin: user.is_administrator,
    disabled: user.disabled_at !== null,
    created_at: user.created_at,
  }
}
