/**
 * A peer: node-oidc-provider with a straightforward Postgres adapter, one table for all its models, as its
 * documentation describes. Its clients are configured, not stored, so that looking them up costs it nothing.
 */
import { generateKeyPairSync } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { Provider } from 'oidc-provider'
import pg from 'pg'
import { APPLICATION, MACHINE, PERSON, REDIRECT_URI, RESOURCE_SERVER, SCOPE } from '../accounts.ts'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 })

/** Keeps the payloads of one model. */
class PostgresAdapter {
  readonly #type: string

  constructor(type: string) {
    this.#type = type
  }

  async upsert(id: string, payload: Record<string, unknown>, expiresInSeconds: number | undefined): Promise<void> {
    const { grantId, userCode, uid } = payload
    await pool.query(
      `insert into oidc_payload (id, type, payload, grant_id, user_code, uid, expires_at)
       values ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))
       on conflict (id, type) do update set payload = excluded.payload, grant_id = excluded.grant_id,
         user_code = excluded.user_code, uid = excluded.uid, expires_at = excluded.expires_at`,
      [id, this.#type, JSON.stringify(payload), grantId, userCode, uid, expiresInSeconds],
    )
  }

  async find(id: string): Promise<unknown> {
    return this.#findBy('id', id)
  }

  async findByUid(uid: string): Promise<unknown> {
    return this.#findBy('uid', uid)
  }

  async findByUserCode(userCode: string): Promise<unknown> {
    return this.#findBy('user_code', userCode)
  }

  async consume(id: string): Promise<void> {
    await pool.query('update oidc_payload set consumed_at = now() where id = $1 and type = $2', [id, this.#type])
  }

  async destroy(id: string): Promise<void> {
    await pool.query('delete from oidc_payload where id = $1 and type = $2', [id, this.#type])
  }

  async revokeByGrantId(grantId: string): Promise<void> {
    await pool.query('delete from oidc_payload where grant_id = $1', [grantId])
  }

  async #findBy(column: 'id' | 'uid' | 'user_code', value: string): Promise<unknown> {
    const { rows } = await pool.query(
      `select payload, consumed_at from oidc_payload
       where ${column} = $1 and type = $2 and (expires_at is null or expires_at > now())`,
      [value, this.#type],
    )
    const [row] = rows
    return row && { ...row.payload, ...(row.consumed_at === null ? {} : { consumed: true }) }
  }
}

const port = Number(process.env.PORT)
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const noCallbacks = { redirect_uris: [], response_types: [] }
const provider = new Provider(`http://localhost:${port}`, {
  adapter: PostgresAdapter,
  clients: [
    {
      client_id: RESOURCE_SERVER.id,
      client_secret: RESOURCE_SERVER.secret,
      grant_types: ['client_credentials'],
      ...noCallbacks,
    },
    { client_id: MACHINE.id, client_secret: MACHINE.secret, grant_types: ['client_credentials'], ...noCallbacks },
    {
      client_id: APPLICATION,
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: [REDIRECT_URI],
    },
  ],
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  cookies: { keys: ['the key of a bench'] },
  expiresWithSession: () => false,
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    registration: { enabled: true },
    userinfo: { enabled: false },
  },
  findAccount: (_context: unknown, id: string) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (_context: unknown, interaction: { uid: string }) => `/interaction/${interaction.uid}` },
  issueRefreshToken: () => true,
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig' }] },
  pkce: { required: () => true },
  rotateRefreshToken: true,
  scopes: ['openid', SCOPE],
  ttl: {
    AccessToken: 3600,
    AuthorizationCode: 600,
    ClientCredentials: 3600,
    Grant: 31_536_000,
    Interaction: 3600,
    RefreshToken: 2_592_000,
    Session: 43_200,
  },
})

/** Signs the person in and agrees for them: once, before anything is measured. */
async function interact(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const grant = new provider.Grant({ accountId: PERSON.id, clientId: APPLICATION })
  grant.addOIDCScope(SCOPE)
  const result = { login: { accountId: PERSON.id }, consent: { grantId: await grant.save() } }
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false })
}

process.on('disconnect', () => process.exit()) // the bench has ended, however that was
const answer = provider.callback()
createServer((request, response) => {
  if (request.url === '/health/live') response.end('{"status":"ok"}')
  else if (request.url?.startsWith('/interaction/'))
    interact(request, response).catch((error) => response.writeHead(500).end(String(error)))
  else answer(request, response)
}).listen(port, '127.0.0.1')
