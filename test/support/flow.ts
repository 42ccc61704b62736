import { createHash, randomBytes } from 'node:crypto'
import { basic } from './credentials.ts'
import { Person } from './person.ts'
import { RESOURCE, type TestPostern } from './postern.ts'

/** A PKCE pair (RFC 7636 §4). */
export function pkce(): { verifier: string; challenge: string } {
  const verifier = randomBytes(32).toString('base64url')
  return { verifier, challenge: createHash('sha256').update(verifier).digest('base64url') }
}

export interface FlowClient {
  client_id: string
  client_secret?: string
  redirect_uris: string[]
}

/** An authorization request as most clients send it; `undefined` leaves a parameter out. */
export function authorizeUrl(
  postern: Pick<TestPostern, 'issuer'>,
  client: FlowClient,
  challenge: string,
  parameters: Record<string, string | undefined> = {},
): string {
  const all = {
    response_type: 'code',
    client_id: client.client_id,
    redirect_uri: client.redirect_uris[0],
    code_challenge: challenge,
    code_challenge_method: 'S256',
    state: 'opaque state',
    resource: RESOURCE,
    ...parameters,
  }
  const given = Object.entries(all).filter((pair): pair is [string, string] => pair[1] !== undefined)
  return `${postern.issuer}/authorize?${new URLSearchParams(given)}`
}

/** Posts a form to a machine endpoint; the secret, if the client has one, goes into the body. */
export async function post(
  postern: Pick<TestPostern, 'issuer'>,
  path: string,
  fields: Record<string, string | undefined>,
  headers: Record<string, string> = {},
): Promise<{ status: number; headers: Headers; body: Record<string, unknown> }> {
  const given = Object.entries(fields).filter((pair): pair is [string, string] => pair[1] !== undefined)
  const response = await fetch(postern.issuer + path, { method: 'POST', body: new URLSearchParams(given), headers })
  const text = await response.text()
  return { status: response.status, headers: response.headers, body: text === '' ? {} : JSON.parse(text) }
}

/** A code for the client, with the verifier that redeems it. */
export async function obtainCode(
  postern: TestPostern,
  client: FlowClient,
  parameters: Record<string, string | undefined> = {},
  person: Person = new Person(),
): Promise<{ code: string; verifier: string }> {
  const { verifier, challenge } = pkce()
  const answer = await person.authorize(authorizeUrl(postern, client, challenge, parameters))
  const code = answer.searchParams.get('code')
  if (code === null) throw new Error(`no code: ${answer.search}`)
  return { code, verifier }
}

/** Redeems a code. */
export async function redeem(
  postern: Pick<TestPostern, 'issuer'>,
  client: FlowClient,
  { code, verifier }: { code: string; verifier: string },
  fields: Record<string, string | undefined> = {},
  headers: Record<string, string> = {},
) {
  const form = {
    grant_type: 'authorization_code',
    code,
    code_verifier: verifier,
    redirect_uri: client.redirect_uris[0],
    client_id: client.client_id,
    client_secret: client.client_secret,
  }
  return post(postern, '/token', { ...form, ...fields }, headers)
}

export interface Tokens {
  access_token: string
  refresh_token: string
  scope: string
  expires_in: number
}

/** A whole flow: sign-in, consent, code, first tokens. */
export async function obtainTokens(
  postern: TestPostern,
  client: FlowClient,
  parameters: Record<string, string | undefined> = {},
  person?: Person,
): Promise<Tokens> {
  const { status, body } = await redeem(postern, client, await obtainCode(postern, client, parameters, person))
  if (status !== 200) throw new Error(`redeemed with ${status}: ${JSON.stringify(body)}`)
  return body as unknown as Tokens
}

/** Refreshes. */
export async function refresh(
  postern: Pick<TestPostern, 'issuer'>,
  client: FlowClient,
  refreshToken: string,
  fields: Record<string, string | undefined> = {},
  headers: Record<string, string> = {},
) {
  const form = {
    grant_type: 'refresh_token',
    refresh_token: refreshToken,
    client_id: client.client_id,
    client_secret: client.client_secret,
  }
  return post(postern, '/token', { ...form, ...fields }, headers)
}

/** Asks as the resource server RESOURCE, or as another one. */
export async function introspect(
  postern: TestPostern,
  token: string,
  resourceServer: { id: string; secret: string } = postern.resourceServer,
): Promise<Record<string, unknown>> {
  const authorization = basic(resourceServer.id, resourceServer.secret)
  const { status, body } = await post(postern, '/introspect', { token }, { authorization })
  if (status !== 200) throw new Error(`introspected with ${status}: ${JSON.stringify(body)}`)
  return body
}

/** Whether a token is active at RESOURCE. */
export async function isActive(postern: TestPostern, token: string): Promise<boolean> {
  return (await introspect(postern, token)).active === true
}
