import { createHash, randomBytes, randomUUID, timingSafeEqual } from 'node:crypto'
import { parse } from 'node:querystring'
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify'
import pg from 'pg'
import { SCOPE } from '../accounts.ts'
import { approve, issue, lookUp, redeem, register, rotate, type Statement } from './statements.ts'

export type Row = Record<string, unknown>

/** Carries out a statement for one entry; the values are those of its columns. `undefined` when there is no row. */
export type Run = (statement: Statement, values: unknown[]) => Promise<Row | undefined>

/** Connections to Postgres: as many as every server of the bench has. */
export const POOL_SIZE = 10

/** Starts a bare limit: what Fastify and Postgres allow to a server that does nothing but look up and store. */
export async function serveLimit(makeRun: (pool: pg.Pool) => Run): Promise<void> {
  const run = makeRun(new pg.Pool({ connectionString: process.env.DATABASE_URL, max: POOL_SIZE }))
  const server = Fastify({ logger: false })
  server.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string' }, (_request, body, done) =>
    done(null, parse(body as string)),
  )
  server.get('/health/live', async () => ({ status: 'ok' }))
  server.post('/introspect', (request, reply) => introspect(run, request, reply))
  server.post('/token', (request, reply) => token(run, request, reply))
  server.get('/authorize', (request, reply) => authorize(run, request, reply))
  server.post('/register', async (request, reply) => {
    const id = randomUUID()
    const metadata = request.body as Row
    await run(register, [id, JSON.stringify(metadata)])
    return reply.code(201).send({ client_id: id, client_id_issued_at: nowSeconds(), ...metadata })
  })
  process.on('disconnect', () => process.exit()) // the bench has ended, however that was
  await server.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
}

async function introspect(run: Run, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { id, secret } = basicOf(request)
  const { token } = request.body as Record<string, string>
  const row = await run(lookUp, [id, hash(token ?? '')])
  if (row === undefined || !timingSafeEqual(row.secret_hash as Buffer, hash(secret))) return refuse(reply)
  reply.header('cache-control', 'no-store')
  if (row.client_id === null) return reply.send({ active: false })
  return reply.send({
    active: true,
    iss: 'http://localhost',
    sub: row.user_id ?? row.client_id,
    ...(row.username === null ? {} : { username: row.username }),
    aud: row.uri,
    client_id: row.client_id,
    scope: row.scope,
    exp: row.exp,
    iat: row.iat,
    token_type: 'Bearer',
  })
}

async function token(run: Run, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const form = request.body as Record<string, string>
  if (form.grant_type === 'client_credentials') return issueToMachine(run, request, reply)
  const accessToken = random(32)
  const secret = random(16)
  if (form.grant_type === 'refresh_token') {
    const [lineage = '', generation, presented = ''] = (form.refresh_token ?? '').split('.')
    const hashes = [hash(secret), hash(accessToken)]
    const row = await run(rotate, [hash(lineage), Number(generation), hash(presented), form.client_id, ...hashes])
    return row === undefined
      ? refuse(reply)
      : answer(reply, accessToken, `${lineage}.${Number(generation) + 1}.${secret}`)
  }
  const lineage = random(32)
  const challenge = hash(form.code_verifier ?? '').toString('base64url')
  const proof = [hash(form.code ?? ''), form.client_id, form.redirect_uri, challenge]
  const row = await run(redeem, [...proof, hash(lineage), hash(secret), hash(accessToken)])
  return row === undefined ? refuse(reply) : answer(reply, accessToken, `${lineage}.0.${secret}`)
}

async function issueToMachine(run: Run, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { id, secret } = basicOf(request)
  const accessToken = random(32)
  const row = await run(issue, [id, hash(secret), hash(accessToken)])
  return row === undefined ? refuse(reply) : answer(reply, accessToken)
}

async function authorize(run: Run, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const query = request.query as Record<string, string>
  const session = /(?:^|; )session=([^;]*)/.exec(request.headers.cookie ?? '')?.[1] ?? ''
  const code = random(32)
  const row = await run(approve, [hash(session), query.client_id, query.redirect_uri, query.code_challenge, hash(code)])
  if (row === undefined) return refuse(reply)
  return reply.redirect(`${query.redirect_uri}?code=${code}&state=${query.state}`, 303)
}

function answer(reply: FastifyReply, accessToken: string, refreshToken?: string): FastifyReply {
  return reply.header('cache-control', 'no-store').send({
    access_token: accessToken,
    token_type: 'Bearer',
    expires_in: 3600,
    ...(refreshToken === undefined ? {} : { refresh_token: refreshToken }),
    scope: SCOPE,
  })
}

function refuse(reply: FastifyReply): FastifyReply {
  return reply.code(400).send({ error: 'invalid_request' })
}

function basicOf(request: FastifyRequest): { id: string; secret: string } {
  const text = Buffer.from((request.headers.authorization ?? '').slice('Basic '.length), 'base64').toString()
  const colon = text.indexOf(':')
  return { id: decodeURIComponent(text.slice(0, colon)), secret: decodeURIComponent(text.slice(colon + 1)) }
}

function hash(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

function random(bytes: number): string {
  return randomBytes(bytes).toString('base64url')
}

function nowSeconds(): number {
  return Math.floor(Date.now() / 1000)
}
