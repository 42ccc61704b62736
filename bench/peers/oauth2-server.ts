/**
 * A peer: @node-oauth/oauth2-server on a bare Fastify, with a small Postgres model of the kind that people write. The
 * library has no introspection endpoint: here it is the thinnest one that the model allows. It has no registration.
 */
import { createHash } from 'node:crypto'
import { parse } from 'node:querystring'
import OAuth2Server from '@node-oauth/oauth2-server'
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify'
import pg from 'pg'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 })

type Row = Record<string, string> & { redirect_uris: string[]; grants: string[]; scope: string[] }

async function findRow(text: string, values: unknown[]): Promise<(Row & Record<`${string}_at`, Date>) | undefined> {
  return (await pool.query(text, values)).rows[0]
}

const clientOf = (row: Row) => ({ id: row.client_id ?? '', redirectUris: row.redirect_uris, grants: row.grants })
const userOf = (row: Row) => ({ id: row.user_id, username: row.username })

const WITH_CLIENT_AND_USER = `join client c on c.id = t.client_id left join "user" u on u.id = t.user_id`
const CLIENT_AND_USER = 'c.redirect_uris, c.grants, u.username'

const model = {
  async getClient(id: string, secret: string | null | undefined) {
    const row = await findRow('select id as client_id, secret_hash, redirect_uris, grants from client where id = $1', [
      id,
    ])
    if (row === undefined) return false
    const presentedHash = secret ? createHash('sha256').update(secret).digest('hex') : null
    return !secret || presentedHash === row.secret_hash ? clientOf(row) : false
  },
  async getUserFromClient() {
    return {}
  },
  async saveToken(token: OAuth2Server.Token, client: OAuth2Server.Client, user: OAuth2Server.User) {
    const { accessToken, accessTokenExpiresAt, refreshToken, refreshTokenExpiresAt, scope } = token
    await pool.query(
      `insert into token (access_token, access_token_expires_at, refresh_token, refresh_token_expires_at, scope,
         client_id, user_id, issued_at) values ($1, $2, $3, $4, $5, $6, $7, now())`,
      [accessToken, accessTokenExpiresAt, refreshToken, refreshTokenExpiresAt, scope, client.id, user.id],
    )
    return { ...token, client, user }
  },
  async getAccessToken(accessToken: string) {
    const row = await findRow(
      `select t.*, ${CLIENT_AND_USER} from token t ${WITH_CLIENT_AND_USER} where t.access_token = $1`,
      [accessToken],
    )
    return (
      row && {
        accessToken,
        accessTokenExpiresAt: row.access_token_expires_at,
        issuedAt: row.issued_at,
        scope: row.scope,
        client: clientOf(row),
        user: userOf(row),
      }
    )
  },
  async getRefreshToken(refreshToken: string) {
    const row = await findRow(
      `select t.*, ${CLIENT_AND_USER} from token t ${WITH_CLIENT_AND_USER} where t.refresh_token = $1`,
      [refreshToken],
    )
    const expires = row && { refreshTokenExpiresAt: row.refresh_token_expires_at }
    return row && { refreshToken, ...expires, scope: row.scope, client: clientOf(row), user: userOf(row) }
  },
  async revokeToken({ refreshToken }: { refreshToken: string }) {
    return (await pool.query('delete from token where refresh_token = $1', [refreshToken])).rowCount === 1
  },
  async saveAuthorizationCode(
    code: OAuth2Server.AuthorizationCode,
    client: OAuth2Server.Client,
    user: OAuth2Server.User,
  ) {
    const { authorizationCode, expiresAt, redirectUri, scope, codeChallenge, codeChallengeMethod } = code
    await pool.query(
      `insert into code (code, expires_at, redirect_uri, scope, challenge, challenge_method, client_id, user_id)
       values ($1, $2, $3, $4, $5, $6, $7, $8)`,
      [authorizationCode, expiresAt, redirectUri, scope, codeChallenge, codeChallengeMethod, client.id, user.id],
    )
    return { ...code, client, user }
  },
  async getAuthorizationCode(authorizationCode: string) {
    const row = await findRow(`select t.*, ${CLIENT_AND_USER} from code t ${WITH_CLIENT_AND_USER} where t.code = $1`, [
      authorizationCode,
    ])
    return (
      row && {
        code: authorizationCode,
        authorizationCode,
        expiresAt: row.expires_at,
        redirectUri: row.redirect_uri,
        scope: row.scope,
        codeChallenge: row.challenge,
        codeChallengeMethod: row.challenge_method,
        client: clientOf(row),
        user: userOf(row),
      }
    )
  },
  async revokeAuthorizationCode({ authorizationCode }: { authorizationCode: string }) {
    return (await pool.query('delete from code where code = $1', [authorizationCode])).rowCount === 1
  },
  async validateScope(_user: unknown, _client: unknown, scope: string[] | undefined) {
    return scope ?? []
  },
}

const oauth = new OAuth2Server({
  model: model as unknown as OAuth2Server.ServerOptions['model'],
  authorizationCodeLifetime: 600,
  requireClientAuthentication: { authorization_code: false, refresh_token: false },
})

/** The person whose session this is, if they have agreed to what this client asks. */
async function findConsentingUser({ headers, query }: OAuth2Server.Request): Promise<unknown> {
  const session = /(?:^|; )session=([^;]*)/.exec(headers?.cookie ?? '')?.[1]
  const row = await findRow(
    `select u.id as user_id, u.username from session s join "user" u on u.id = s.user_id
     where s.id = $1 and s.expires_at > now()`,
    [session],
  )
  if (row === undefined) return false
  const consent = [row.user_id, query?.client_id]
  const agreed = await findRow('select 1 as yes from consent where user_id = $1 and client_id = $2', consent)
  return agreed && userOf(row)
}

const server = Fastify({ logger: false })
server.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string' }, (_request, body, done) =>
  done(null, { ...parse(body as string) }),
)
server.get('/health/live', async () => ({ status: 'ok' }))
server.post('/token', (request, reply) => relay(request, reply, (...both) => oauth.token(...both)))
server.get('/authorize', (request, reply) =>
  relay(request, reply, (...both) => oauth.authorize(...both, { authenticateHandler: { handle: findConsentingUser } })),
)
server.post('/introspect', async (request, reply) => {
  const basic = Buffer.from((request.headers.authorization ?? '').slice('Basic '.length), 'base64').toString()
  const [id = '', secret = ''] = basic.split(':')
  const caller = secret !== '' && (await model.getClient(id, secret))
  if (!caller) return reply.code(401).send({ error: 'invalid_client' })
  const token = await model.getAccessToken((request.body as Record<string, string>).token ?? '')
  reply.header('cache-control', 'no-store')
  if (token === undefined || (token.accessTokenExpiresAt ?? 0) < new Date()) return reply.send({ active: false })
  return reply.send({
    active: true,
    sub: token.user.id ?? token.client.id,
    ...(token.user.username === null ? {} : { username: token.user.username }),
    client_id: token.client.id,
    scope: token.scope.join(' '),
    exp: Math.floor(Number(token.accessTokenExpiresAt) / 1000),
    iat: Math.floor(Number(token.issuedAt) / 1000),
    token_type: 'Bearer',
  })
})
process.on('disconnect', () => process.exit()) // the bench has ended, however that was
await server.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })

/** Lets the library answer. */
async function relay(
  request: FastifyRequest,
  reply: FastifyReply,
  handle: (request: OAuth2Server.Request, response: OAuth2Server.Response) => Promise<unknown>,
): Promise<FastifyReply> {
  const response = new OAuth2Server.Response()
  await handle(
    new OAuth2Server.Request({
      headers: request.headers as Record<string, string>,
      method: request.method,
      query: request.query as Record<string, string>,
      body: request.body,
    }),
    response,
  ).catch(() => {}) // the response says it
  return reply
    .code(response.status ?? 500)
    .headers(response.headers ?? {})
    .send(response.body)
}
