import type { Test } from 'tap'
import { assertionBy, type ClientKey } from './assertion.ts'
import type { Connector, Facts } from './connectors.ts'
import { basic } from './credentials.ts'
import { freePort } from './postern.ts'
import { problemsOf } from './schemas.ts'

type Json = Record<string, unknown>

const PROTOCOL = { 'mcp-protocol-version': '2025-11-25' }

/** One installation of a connector, doing what it does against real servers. Every answer is checked on the way. */
export class ConnectorRun {
  readonly connector: Connector
  readonly facts: Facts
  readonly metadata: Json
  readonly client: Json
  readonly #t: Test
  readonly #key: ClientKey | undefined

  private constructor(
    t: Test,
    connector: Connector,
    facts: Facts,
    { metadata, client, key }: { metadata: Json; client: Json; key: ClientKey | undefined },
  ) {
    this.#t = t
    this.connector = connector
    this.facts = facts
    this.metadata = metadata
    this.client = client
    this.#key = key
  }

  /**
   * From the MCP server's address to a client that the server knows, or can come to know.
   *
   * @param key of a connector whose document says `private_key_jwt`
   */
  static async start(t: Test, connector: Connector, url: string, key?: ClientKey): Promise<ConnectorRun> {
    const challenge = await send(t, connector, url, { method: connector.probe })
    t.equal(challenge.status, 401)
    const header = challenge.headers.get('www-authenticate') ?? ''
    const resourceMetadata = await send(t, connector, /resource_metadata="([^"]+)"/.exec(header)?.[1] ?? '')
    const resource = (await resourceMetadata.json()) as { resource: string; authorization_servers: string[] }
    if (connector.demandedResource) t.equal(resource.resource, connector.demandedResource(url))
    const [issuer = ''] = resource.authorization_servers
    const metadata = await discover(t, connector, issuer)
    const facts: Facts = {
      url,
      challengedScope: /scope="([^"]+)"/.exec(header)?.[1] ?? '',
      scopes: metadata.scopes_supported as string[],
      grantTypes: metadata.grant_types_supported as string[],
      port: await freePort(),
    }
    const client = documentFor(connector, metadata) ?? (await register(t, connector, metadata, facts))
    return new ConnectorRun(t, connector, facts, { metadata, client, key })
  }

  get redirectUri(): string {
    return this.connector.redirectUri(this.facts)
  }

  /** Where it sends the browser. */
  authorizeUrl(challenge: string): string {
    const parameters = new URLSearchParams({
      response_type: 'code',
      client_id: String(this.client.client_id),
      redirect_uri: this.redirectUri,
      code_challenge: challenge,
      code_challenge_method: 'S256',
      ...this.connector.authorize(this.facts),
    })
    return `${this.metadata.authorization_endpoint}?${parameters}`
  }

  /** The code from the address at which the browser came back, when all else there is right. */
  readAnswer(answer: URL): string {
    const t = this.#t
    t.equal(answer.href.split('?')[0], this.redirectUri)
    t.equal(answer.searchParams.get('state'), this.connector.authorize(this.facts).state ?? null)
    const announced = this.metadata.authorization_response_iss_parameter_supported === true
    t.strictSame(answer.searchParams.getAll('iss'), announced ? [this.metadata.issuer] : [])
    t.type(answer.searchParams.get('code'), 'string')
    return String(answer.searchParams.get('code'))
  }

  redeem(code: string, verifier: string): Promise<{ status: number; body: Json }> {
    return this.#token({
      grant_type: 'authorization_code',
      code,
      code_verifier: verifier,
      redirect_uri: this.redirectUri,
      ...this.connector.redeem(this.facts),
    })
  }

  refresh(refreshToken: unknown): Promise<{ status: number; body: Json }> {
    const fields = { grant_type: 'refresh_token', refresh_token: String(refreshToken) }
    return this.#token({ ...fields, ...this.connector.refresh(this.facts) })
  }

  async #token(fields: Record<string, string>): Promise<{ status: number; body: Json }> {
    const { parameters, headers } = await this.#credentials()
    const response = await send(this.#t, this.connector, String(this.metadata.token_endpoint), {
      method: 'POST',
      body: new URLSearchParams({ ...fields, ...parameters }).toString(),
      headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json', ...headers },
    })
    const answer = (await response.json()) as Json
    this.#t.strictSame(await problemsOf(response.ok ? 'tokens' : 'error', answer), [])
    return { status: response.status, body: answer }
  }

  /** What says who it is at the token endpoint. */
  async #credentials(): Promise<{ parameters: Record<string, string>; headers: Record<string, string> }> {
    const { client_id, client_secret, token_endpoint_auth_method: method } = this.client as Record<string, string>
    const id = { client_id: String(client_id) }
    if (method === 'private_key_jwt') {
      if (this.#key === undefined) throw new Error(`${this.connector.name} needs a key`)
      const aud = this.metadata.token_endpoint
      const issuer = String(this.metadata.issuer)
      return {
        parameters: { ...id, ...(await assertionBy({ issuer }, id.client_id, this.#key, { aud })) },
        headers: {},
      }
    }
    if (client_secret === undefined) return { parameters: id, headers: {} }
    if (this.connector.authentication === 'post') return { parameters: { ...id, client_secret }, headers: {} }
    return { parameters: {}, headers: { authorization: basic(id.client_id, client_secret) } }
  }
}

/** The client that a connector's document makes it, if the server takes documents and what this one says. */
function documentFor({ document }: Connector, metadata: Json): Json | undefined {
  if (document === undefined || metadata.client_id_metadata_document_supported !== true) return undefined
  const methods = metadata.token_endpoint_auth_methods_supported as unknown[]
  return methods.includes(document.token_endpoint_auth_method) ? document : undefined
}

/** Registers; the answer is checked. */
async function register(t: Test, connector: Connector, metadata: Json, facts: Facts): Promise<Json> {
  const request = connector.registration(facts)
  const registered = await send(t, connector, String(metadata.registration_endpoint), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(request),
  })
  t.equal(registered.status, 201)
  const client = (await registered.json()) as Json
  t.strictSame(await problemsOf('registration', client), [])
  t.strictSame(client.redirect_uris, request.redirect_uris)
  t.equal('client_secret' in client, connector.authentication !== 'none')
  const { token_endpoint_auth_method: method } = request
  if (method !== undefined) t.equal(client.token_endpoint_auth_method, method)
  return client
}

/** Looks for the metadata in the connector's order: what isn't there is a 404 in JSON, never a page or a redirect. */
async function discover(t: Test, connector: Connector, issuer: string): Promise<Json> {
  for (const address of connector.discovery(new URL(issuer))) {
    const response = await send(t, connector, address, { headers: { accept: 'application/json', ...PROTOCOL } })
    t.match(response.headers.get('content-type'), /^application\/json/, address)
    const answer = (await response.json()) as Json
    if (response.status === 200) {
      t.strictSame(await problemsOf('metadata', answer), [])
      t.equal(answer.issuer, issuer)
      return answer
    }
    t.equal(response.status, 404, address)
    t.strictSame(await problemsOf('error', answer), [])
  }
  throw new Error(`${connector.name} finds no metadata for ${issuer}`)
}

/** One request; a connector that is a web page sends its origin, and asks first when the browser would. */
async function send(t: Test, { origin }: Connector, address: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers)
  if (origin !== undefined) {
    headers.set('origin', origin)
    const unsafe = [...headers.keys()].filter((name) => !['accept', 'origin'].includes(name))
    const preflight = await fetch(address, {
      method: 'OPTIONS',
      headers: {
        origin,
        'access-control-request-method': init.method ?? 'GET',
        ...(unsafe.length === 0 ? {} : { 'access-control-request-headers': unsafe.join(',') }),
      },
    })
    t.ok(preflight.ok, `preflight of ${address}`)
    t.equal(preflight.headers.get('access-control-allow-origin'), '*')
    const allowed = (preflight.headers.get('access-control-allow-headers') ?? '').toLowerCase().split(/, */)
    for (const name of unsafe) t.ok(allowed.includes(name) || allowed.includes('*'), `${name} at ${address}`)
  }
  const response = await fetch(address, { ...init, headers, redirect: 'manual' })
  if (origin !== undefined) t.equal(response.headers.get('access-control-allow-origin'), '*')
  return response
}
