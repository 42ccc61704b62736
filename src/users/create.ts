import type { Context } from '../context.ts'
import { passwordProblem, USERNAME_RULE, usernameKey } from '../protocol/username.ts'
import { insertSetupLink, removeSetupLinks } from '../store/setup-link.ts'
import { insertFirstUser, insertUser, type NewUser } from '../store/user.ts'
import { hashSecret, issueCredential, randomId } from '../tokens/secret.ts'

/** How long a set-up link may be used. */
const SETUP_LINK_SECONDS = 86_400

export interface ChosenUser {
  username: string
  password: string
  isAdministrator: boolean
}

/** `problem` is a sentence for the person who chose the name and the password. */
export type CreateUserResult =
  | { outcome: 'created'; user: NewUser }
  | { outcome: 'refused'; problem: string }
  | { outcome: 'exists'; problem: string }

/** Creates a user. */
export async function createUser(
  context: Pick<Context, 'db' | 'passwords'>,
  chosen: ChosenUser,
): Promise<CreateUserResult> {
  const user = await prepareUser(context, chosen)
  if (typeof user === 'string') return { outcome: 'refused', problem: user }
  if (await insertUser(context.db, user)) {
    await removeSetupLinks(context.db) // there is a user now: a link must not come back to life when that one goes
    return { outcome: 'created', user }
  }
  return { outcome: 'exists', problem: `There is a user ${chosen.username} already.` }
}

/** Creates the first user, an administrator; of any number of concurrent attempts one wins. */
export async function createFirstUser(
  context: Pick<Context, 'db' | 'passwords'>,
  chosen: { username: string; password: string },
): Promise<CreateUserResult> {
  const user = await prepareUser(context, { ...chosen, isAdministrator: true })
  if (typeof user === 'string') return { outcome: 'refused', problem: user }
  const created = await context.db.transaction().execute(async (trx) => {
    const first = await insertFirstUser(trx, user)
    if (first) await removeSetupLinks(trx)
    return first
  })
  return created ? { outcome: 'created', user } : { outcome: 'exists', problem: 'There is a user already.' }
}

/** Makes a one-time link with which the first user can be created, as long as there is none. */
export async function issueSetupLink({ config, db }: Pick<Context, 'config' | 'db'>): Promise<string> {
  const secret = issueCredential('setupLink')
  await insertSetupLink(db, hashSecret(secret), SETUP_LINK_SECONDS)
  return `${config.issuer}/setup?token=${secret}`
}

/** The user to be stored, or what is wrong with the choice. */
async function prepareUser({ passwords }: Pick<Context, 'passwords'>, chosen: ChosenUser): Promise<NewUser | string> {
  const key = usernameKey(chosen.username)
  if (key === undefined) return USERNAME_RULE
  const problem = passwordProblem(chosen.password)
  if (problem !== undefined) return problem
  return {
    id: randomId(),
    username: chosen.username.trim(),
    usernameKey: key,
    passwordHash: await passwords.hash(chosen.password),
    isAdministrator: chosen.isAdministrator,
  }
}
