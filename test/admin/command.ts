import { join } from 'node:path'
import type { Test } from 'tap'
import { AdminError, type Answer } from '../../src/admin/output.ts'
import { type Config, readConfig } from '../../src/config.ts'
import type { Context } from '../../src/context.ts'
import { insertAuthorizationCode, redeemAuthorizationCode } from '../../src/store/authorization-code.ts'
import { findResource } from '../../src/store/resource.ts'
import { findUser } from '../../src/store/user.ts'
import { randomId, randomSecret } from '../../src/tokens/secret.ts'
import { runProgram } from '../support/child-process.ts'
import { createTestDatabase } from '../support/database.ts'

export const CLI = join(import.meta.dirname, '..', '..', 'src', 'cli.js')

/** What a command did. */
export interface Ran {
  code: number | null
  output: string
  errors: string
}

export type Run = (args: string[], input?: string) => Promise<Ran>

/** The command, in an environment. */
export function commandIn(env: Record<string, string>): Run {
  return (args, input = '') => runProgram(CLI, { args, env, input })
}

/** The command with a database of its own, as a process, and what it does as functions with `config`, which is quicker. */
export async function startCommand(t: Test, more: Record<string, string> = {}) {
  const { url, db } = await createTestDatabase(t)
  const environment = { DATABASE_URL: url, ISSUER: 'https://auth.example.com', ...more }
  const config: Config = readConfig(environment)
  const run = commandIn(environment)
  const succeed = async (args: string[], input?: string): Promise<string> => {
    const { code, output, errors } = await run(args, input)
    t.same({ code, errors }, { code: 0, errors: '' }, args.join(' '))
    return output
  }
  return {
    config,
    db,
    run,
    /** standard output of a command that must succeed and have nothing to complain of */
    succeed,
    /** its JSON answer */
    ask: async (args: string[], input?: string) => JSON.parse(await succeed([...args, '--json'], input)),
    /** one line on standard error, exit code 1, nothing else: gives the line */
    fail: async (args: string[], input?: string): Promise<string> => {
      const { code, output, errors } = await run(args, input)
      t.same({ code, output }, { code: 1, output: '' }, args.join(' '))
      t.match(errors, /^[^\n]+\n$/, args.join(' '))
      return errors.trimEnd()
    },
  }
}

/** What an answer says in text. */
export async function textOf(answer: Promise<Answer>): Promise<string> {
  return (await answer).text.join('\n')
}

/** What an answer says in JSON, as a program reads it. */
export async function jsonOf(answer: Promise<Answer>) {
  return JSON.parse(JSON.stringify((await answer).json))
}

/** Why something is refused. */
export async function refusalOf(answer: Promise<Answer>): Promise<string> {
  try {
    await answer
  } catch (error) {
    if (error instanceof AdminError) return error.message
    throw error
  }
  throw new Error('it was not refused')
}

/** Grants the default resource to a client, as a person does who connects it. */
export async function addGrant(db: Context['db'], usernameKey: string, clientId: string): Promise<string> {
  const user = await findUser(db, usernameKey)
  const resource = await findResource(db, undefined)
  if (user === undefined || resource === undefined) throw new Error('add a user and a resource server first')
  const codeHash = randomSecret()
  const request = {
    codeHash,
    clientId,
    redirectUri: 'https://app.example.com/callback',
    codeChallenge: 'challenge',
    dpopJkt: undefined,
    approvedFrom: '127.0.0.1',
  }
  const scope = resource.scopes.map(({ name }) => name)
  await insertAuthorizationCode(db, { ...request, userId: user.id, resourceId: resource.id, scope, seconds: 60 })
  const familyId = randomId()
  const redemption = { ...request, resourceCandidates: undefined }
  const issued = await redeemAuthorizationCode(db, {
    ...redemption,
    family: {
      familyId,
      dpopJkt: undefined,
      bindsRefreshToken: false,
      refreshToken: { lineageHash: randomSecret(), secretHash: randomSecret() },
      accessTokenHash: randomSecret(),
      accessTokenSeconds: 3600,
      refreshTokenSeconds: 86_400,
      familySeconds: 86_400,
    },
  })
  if (issued === undefined) throw new Error('the code was not redeemed')
  return familyId
}
