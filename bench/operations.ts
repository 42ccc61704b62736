import { createHash } from 'node:crypto'
import { hashedAccessToken } from '../src/tokens/access-token.ts'
import { type Confidential, REDIRECT_URI, SCOPE } from './accounts.ts'
import type { Answer, Connection } from './http-client.ts'

/** What is measured, with its name in the tables. */
export const OPERATIONS = {
  'introspect-user': 'introspection of user tokens',
  'introspect-client': 'introspection of client-credentials tokens',
  'client-credentials': 'client credentials',
  refresh: 'refresh rotation',
  code: 'code exchange',
  flow: 'signed-in code flow',
  register: 'registration',
} as const

export type OperationName = keyof typeof OPERATIONS

/** What the driver has to know of a server. */
export interface Target {
  /** one for each process */
  ports: number[]
  paths: { introspect: string; token: string; authorize: string; register: string }
  resourceServer: Confidential
  machine: Confidential
  /** client_id of the public client */
  application: string
  /** Cookie header of a browser that is signed in */
  cookie: string
  /** how many tokens are stored of each kind */
  userTokens: number
  clientTokens: number
  /** tokens look like Postern's, or are plain base64url */
  isPostern: boolean
}

/** Tokens of a minute: the bench stores them as if they had been issued one after the other. */
export const TOKENS_A_MINUTE = 8192

/** The token with this number: the same as in SQL, where the rows are made (`seed.ts`). */
export function tokenText(kind: 'user' | 'client', number: number, isPostern: boolean): string {
  const content = createHash('sha256').update(`${kind} token ${number}`).digest()
  if (!isPostern) return content.toString('base64url')
  const minute = Buffer.alloc(3)
  minute.writeUIntBE(Math.floor(number / TOKENS_A_MINUTE), 0, 3)
  return hashedAccessToken(Buffer.concat([minute, content])).text
}

/** Tokens that are asked about, of all that are stored: enough that no cache of Postgres holds just these. */
const TOKENS_SAMPLED = 50_000

const FORM = 'content-type: application/x-www-form-urlencoded\r\n'
const JSON_TYPE = 'content-type: application/json\r\n'
const VERIFIER = 'a-code-verifier-of-the-bench-0123456789-0123456789'
const CHALLENGE = createHash('sha256').update(VERIFIER).digest('base64url')
const REGISTRATION = JSON.stringify({
  client_name: 'Application of the bench',
  redirect_uris: [REDIRECT_URI],
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  token_endpoint_auth_method: 'none',
})

/** The operations at one server, with what they remember from one time to the next. */
export class Operations {
  readonly #target: Target
  readonly #samples = new Map<'user' | 'client', string[]>()
  readonly #refreshTokens: string[] = []
  #codes: string[] = []

  constructor(target: Target) {
    this.#target = target
  }

  /** Makes what an operation needs, outside the measured time. @param requests how many it may be */
  async prepare(name: OperationName, connections: Connection[], requests: number): Promise<void> {
    if (name === 'introspect-user' || name === 'introspect-client') await this.#sample(kindOf(name), connections)
    if (name === 'refresh' && this.#refreshTokens.length === 0) {
      const tokens = await Promise.all(connections.map((connection) => this.#codeFlow(connection)))
      this.#refreshTokens.push(...tokens.map((one) => one.refresh_token as string))
    }
    if (name === 'code') {
      this.#codes = []
      const makeCodes = async (connection: Connection) => {
        while (this.#codes.length < requests) this.#codes.push(await this.#authorize(connection))
      }
      await Promise.all(connections.map(makeCodes))
    }
  }

  /** Carries out one operation. @throws when the answer isn't the right one */
  async run(name: OperationName, connection: Connection, worker: number): Promise<unknown> {
    if (name === 'introspect-user' || name === 'introspect-client') {
      const tokens = this.#samples.get(kindOf(name)) ?? []
      return this.#introspect(tokens[Math.floor(Math.random() * tokens.length)], connection)
    }
    if (name === 'client-credentials') return this.#clientCredentials(connection)
    if (name === 'refresh') return this.#refresh(connection, worker)
    if (name === 'code') return this.#redeem(connection, this.#codes.pop() ?? '')
    if (name === 'flow') return this.#codeFlow(connection)
    const answer = await connection.post(this.#target.paths.register, JSON_TYPE, REGISTRATION)
    return demand(answer, 201)
  }

  /** Chooses tokens, and asks about each once: where millions are stored, the pages of these are in memory from then on. */
  async #sample(kind: 'user' | 'client', connections: Connection[]): Promise<void> {
    if (this.#samples.has(kind)) return
    const { userTokens, clientTokens, isPostern } = this.#target
    const stored = kind === 'user' ? userTokens : clientTokens
    const length = Math.min(stored, TOKENS_SAMPLED)
    const numbers = Array.from({ length }, (_, n) => 1 + Math.floor((n * stored) / length))
    const tokens = numbers.map((number) => tokenText(kind, number, isPostern))
    const rest = tokens.values() // shared: each token is asked about once
    const ask = async (connection: Connection) => {
      for (const token of rest) await this.#introspect(token, connection)
    }
    await Promise.all(connections.map(ask))
    this.#samples.set(kind, tokens)
  }

  async #introspect(token: string | undefined, connection: Connection): Promise<void> {
    const { paths, resourceServer } = this.#target
    const answer = await connection.post(paths.introspect, FORM + basic(resourceServer), `token=${token}`)
    if (answer.status !== 200 || !answer.body.includes('"active":true')) throw unexpected(answer)
  }

  async #clientCredentials(connection: Connection): Promise<unknown> {
    const { paths, machine } = this.#target
    const body = `grant_type=client_credentials&scope=${SCOPE}`
    return demand(await connection.post(paths.token, FORM + basic(machine), body), 200)
  }

  async #refresh(connection: Connection, worker: number): Promise<void> {
    const { paths, application } = this.#target
    const body = `grant_type=refresh_token&client_id=${application}&refresh_token=${this.#refreshTokens[worker]}`
    const tokens = demand(await connection.post(paths.token, FORM, body), 200)
    this.#refreshTokens[worker] = tokens.refresh_token as string
  }

  async #codeFlow(connection: Connection): Promise<Record<string, unknown>> {
    return this.#redeem(connection, await this.#authorize(connection))
  }

  async #authorize(connection: Connection): Promise<string> {
    const { paths, application, cookie } = this.#target
    const answer = await connection.get(authorizationPath(paths.authorize, application), `cookie: ${cookie}\r\n`)
    const code = /[?&]code=([^&]+)/.exec(answer.location ?? '')?.[1]
    if (code === undefined) throw unexpected(answer)
    return code
  }

  async #redeem(connection: Connection, code: string): Promise<Record<string, unknown>> {
    const { paths, application } = this.#target
    const body = new URLSearchParams({
      grant_type: 'authorization_code',
      client_id: application,
      redirect_uri: REDIRECT_URI,
      code,
      code_verifier: VERIFIER,
    }).toString()
    return demand(await connection.post(paths.token, FORM, body), 200)
  }
}

/** An authorization request, as a browser sends it. */
export function authorizationPath(path: string, clientId: string): string {
  const query = new URLSearchParams({
    response_type: 'code',
    client_id: clientId,
    redirect_uri: REDIRECT_URI,
    scope: SCOPE,
    state: 'state-of-the-bench',
    code_challenge: CHALLENGE,
    code_challenge_method: 'S256',
  })
  return `${path}?${query}`
}

function kindOf(name: 'introspect-user' | 'introspect-client'): 'user' | 'client' {
  return name === 'introspect-user' ? 'user' : 'client'
}

function basic({ id, secret }: Confidential): string {
  return `authorization: Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}\r\n`
}

function demand(answer: Answer, status: number): Record<string, unknown> {
  if (answer.status !== status) throw unexpected(answer)
  return JSON.parse(answer.body)
}

function unexpected({ status, location = '', body }: Answer): Error {
  return new Error(`an unexpected answer: ${status} ${location} ${body.slice(0, 300)}`)
}
