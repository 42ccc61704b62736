import { createHmac, createPublicKey, generateKeyPairSync, type JsonWebKey, randomBytes } from 'node:crypto'
import {
  CompactSign,
  decodeJwt,
  decodeProtectedHeader,
  exportJWK,
  generateKeyPair,
  importPKCS8,
  type JWK,
  SignJWT,
} from 'jose'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { rotateSigningKey } from '../../src/keys/signing-key.ts'
import { createSigningKeys } from '../../src/keys/signing-keys.ts'
import { listSigningKeys } from '../../src/store/signing-key.ts'
import { addMachine, issueJwts, obtainMachineToken } from '../support/access-token.ts'
import { basic, storedHash } from '../support/credentials.ts'
import { introspect, isActive, obtainTokens, post, refresh } from '../support/flow.ts'
import { addClient, addResource, RESOURCE, startTestPostern, type TestPostern } from '../support/postern.ts'
import { startReplica } from '../support/replica.ts'
import { until } from '../support/until.ts'

const ENCRYPTION_KEY = 'sW8cVdL0b9nYqk3m6Zt1Xo7aE4rUj2Hf5PgCxNvKiQs='

t.test('introspection and revocation work for JWTs (RFC 7662 §2.2, RFC 7009 §2)', async (t) => {
  const postern = await startTestPostern(t)
  await issueJwts(postern)
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  const first = await obtainTokens(postern, client)
  const payload = decodeJwt(first.access_token)
  t.match(await introspect(postern, first.access_token), {
    active: true,
    iss: payload.iss,
    sub: payload.sub,
    aud: payload.aud,
    client_id: payload.client_id,
    scope: payload.scope,
    exp: payload.exp,
    iat: payload.iat,
  })

  const other = await addResource(postern, 'https://other.example/mcp')
  t.same(await introspect(postern, first.access_token, other), { active: false }, 'not theirs')

  const { body } = await refresh(postern, client, first.refresh_token)
  const second = String(body.access_token)
  t.equal(await isActive(postern, first.access_token), false, 'superseded')
  t.equal(await isActive(postern, second), true)

  const stranger = await addClient(postern, { redirectUris: ['https://stranger.example/callback'] })
  t.equal((await post(postern, '/revoke', { token: second, client_id: stranger.client_id })).status, 200)
  t.equal(await isActive(postern, second), true, 'another client’s')
  t.equal((await post(postern, '/revoke', { token: second, client_id: client.client_id })).status, 200)
  t.equal(await isActive(postern, second), false)
})

t.test('what is stored of a JWT finds it, and is neither it nor a credential', async (t) => {
  const { postern, token } = await start(t)
  const payload = decodeJwt(token)
  const stored = await postern.db.selectFrom('access_token').select('token_hash').executeTakeFirstOrThrow()
  t.equal(stored.token_hash.toString('base64url'), payload.jti)
  t.equal(await isActive(postern, String(payload.jti)), false)
  t.equal(await isActive(postern, `postern_at_${payload.jti}`), false)
})

t.test('a JWT that was tampered with, or that others signed, is inactive (RFC 8725)', async (t) => {
  const { postern, token } = await start(t)
  const header = decodeProtectedHeader(token)
  const payload = decodeJwt(token)
  const [head = '', body = '', signature = ''] = token.split('.')
  const publicJwk = await publishedKey(postern)
  const kid = String(header.kid)
  const theirs = await generateKeyPair('ES256', { extractable: true })
  const embedded = await exportJWK(theirs.publicKey)
  const bySomebody = (protectedHeader: object) =>
    new SignJWT(payload)
      .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid, ...protectedHeader })
      .sign(theirs.privateKey)
  const spki = createPublicKey({ key: publicJwk as JsonWebKey, format: 'jwk' }).export({ type: 'spki', format: 'pem' })
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const attacks: Record<string, string> = {
    'alg none': `${part({ ...header, alg: 'none' })}.${body}.`,
    'alg none, with the signature': `${part({ ...header, alg: 'none' })}.${body}.${signature}`,
    'alg NONE, no kid': `${part({ typ: 'at+jwt', alg: 'NONE' })}.${body}.`,
    'HS256 over the public key in PEM': hs256({ ...header, alg: 'HS256' }, payload, spki),
    'HS256 over the public JWK': hs256({ ...header, alg: 'HS256' }, payload, JSON.stringify(publicJwk)),
    'HS256 over x': hs256({ ...header, alg: 'HS256' }, payload, Buffer.from(String(publicJwk.x), 'base64url')),
    'HS256 with an empty key': hs256({ ...header, alg: 'HS256' }, payload, ''),
    'a foreign key under our kid': await bySomebody({}),
    'a foreign key with its jwk': await bySomebody({ jwk: embedded }),
    'a foreign kid': await bySomebody({ kid: 'foreign' }),
    'a kid that is SQL': await bySomebody({ kid: "' or true --" }),
    'no kid': await bySomebody({ kid: undefined }),
    'a foreign key at a jku': await bySomebody({ jku: 'https://attacker.example/jwks' }),
    'another algorithm under our kid': await new SignJWT(payload)
      .setProtectedHeader({ alg: 'RS256', typ: 'at+jwt', kid })
      .sign(rsa.privateKey),
    'the signature of zeros (CVE-2022-21449)': `${head}.${body}.${Buffer.alloc(64).toString('base64url')}`,
    'no signature': `${head}.${body}.`,
    'two parts': `${head}.${body}`,
    'four parts': `${token}.${signature}`,
    'a longer life': `${head}.${part({ ...payload, exp: 4_000_000_000 })}.${signature}`,
    'another jti': `${head}.${part({ ...payload, jti: randomBytes(32).toString('base64url') })}.${signature}`,
    'a header that is no JSON': `${Buffer.from('{').toString('base64url')}.${body}.${signature}`,
    'a header that is null': `${part(null)}.${body}.${signature}`,
    'a header that is a list': `${part([])}.${body}.${signature}`,
    'typ in capitals': `${part({ ...header, typ: 'AT+JWT' })}.${body}.${signature}`,
    dots: '...',
    'one dot': '.',
    'a JWT in JSON': JSON.stringify({ protected: head, payload: body, signature }),
    'something long': `${head}.${'a'.repeat(7000)}.${signature}`,
    'characters that are no base64url': `${head}.${body}.+/=é`,
  }
  for (const [attack, forged] of Object.entries(attacks)) {
    t.same(await introspect(postern, forged), { active: false }, attack)
  }
  t.equal(await isActive(postern, token), true, 'the real one')
})

t.test('what our own key has signed for another purpose is no access token (RFC 8725 §3.11)', async (t) => {
  const { postern, token } = await start(t)
  const header = decodeProtectedHeader(token)
  const payload = decodeJwt(token)
  const [row] = await listSigningKeys(postern.db)
  const privateKey = await importPKCS8(String(row?.privateKey), 'ES256')
  const sign = (protectedHeader: object, claims: object) =>
    new CompactSign(Buffer.from(JSON.stringify(claims)))
      .setProtectedHeader({ ...(header as { alg: string }), ...protectedHeader })
      .sign(privateKey)
  t.equal(await isActive(postern, await sign({}, payload)), true, 'the same header and claims')
  t.equal(await isActive(postern, await sign({ typ: 'token-introspection+jwt' }, payload)), false, 'typ')
  t.equal(await isActive(postern, await sign({ typ: 'JWT' }, payload)), false, 'typ')
  t.equal(await isActive(postern, await sign({ typ: undefined }, payload)), false, 'no typ')
  t.equal(await isActive(postern, await sign({}, { ...payload, iss: 'https://other.example' })), false, 'iss')
  t.equal(await isActive(postern, await sign({}, { ...payload, jti: 5 })), false, 'jti')
  t.equal(await isActive(postern, await sign({}, [])), false, 'no claims')

  const authorization = basic(postern.resourceServer.id, postern.resourceServer.secret)
  const headers = { authorization, accept: 'application/token-introspection+jwt' }
  const answer = await fetch(`${postern.issuer}/introspect`, {
    method: 'POST',
    headers,
    body: new URLSearchParams({ token }),
  })
  t.equal(await isActive(postern, await answer.text()), false, 'a signed introspection answer')
})

t.test('a dump of hashes and unsealed keys makes no token for a resource server with opaque ones', async (t) => {
  const { postern, token } = await start(t)
  const header = decodeProtectedHeader(token)
  const payload = decodeJwt(token)
  const other = 'https://other.example/mcp'
  const otherServer = await addResource(postern, other, [{ name: 'read', description: 'Read' }])
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  const opaque = (await obtainTokens(postern, client, { resource: other })).access_token
  const jti = storedHash(opaque).toString('base64url')
  const privateKey = await importPKCS8(String((await listSigningKeys(postern.db))[0]?.privateKey), 'ES256')
  const forged = await new SignJWT({ ...payload, aud: other, jti })
    .setProtectedHeader(header as { alg: string })
    .sign(privateKey)
  t.same(await introspect(postern, forged, otherServer), { active: false })
  t.match(await introspect(postern, opaque, otherServer), { active: true, username: 'alice' })
})

t.test('opaque tokens hold on when their resource server changes to JWTs', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  const { access_token: opaque, refresh_token } = await obtainTokens(postern, client)
  await issueJwts(postern)
  t.equal(await isActive(postern, opaque), true)
  const { body } = await refresh(postern, client, refresh_token)
  t.match(body.access_token, /^ey/)
  t.equal(await isActive(postern, String(body.access_token)), true)
})

t.test('a signed answer is for a resource server that has proven who it is (RFC 9701 §4)', async (t) => {
  const { postern, token } = await start(t)
  const accept = 'application/token-introspection+jwt'
  const { id } = postern.resourceServer
  const refused = await post(postern, '/introspect', { token }, { authorization: basic(id, 'wrong'), accept })
  t.equal(refused.status, 401)
  t.equal(refused.body.error, 'invalid_client')
})

t.test('nonsense at introspection is never a fault of the server', async (t) => {
  const { postern, token } = await start(t)
  for (let turn = 0; turn < 200; turn += 1) {
    const bytes = Buffer.from(token)
    for (let change = 0; change < 3; change += 1) {
      bytes[Math.floor(Math.random() * bytes.length)] = 0x20 + Math.floor(Math.random() * 95)
    }
    const mutated = bytes.toString()
    if (mutated !== token) t.same(await introspect(postern, mutated), { active: false }, mutated)
  }
})

t.test('two servers on one empty database agree on the first key', async (t) => {
  const postern = await startTestPostern(t, {}, { bare: true })
  await postern.db.deleteFrom('signing_key').execute()
  const { config, db, log } = postern.context
  const replicas = Array.from({ length: 8 }, () => createSigningKeys({ config, db, log }))
  await Promise.all(replicas.map((keys) => keys.tend()))
  t.equal((await listSigningKeys(db)).length, 1)
  const published = await Promise.all(replicas.map((keys) => keys.published()))
  t.equal(new Set(published.map(({ jwks }) => jwks)).size, 1)
})

t.test('a token of one server is known to another at once, also when the key is new', async (t) => {
  const { postern, machine, token } = await start(t)
  const replica = await startReplica(t, postern)
  t.equal(await isActive(replica, token), true)
  await rotateSigningKey(postern.context, 'EdDSA', true)
  const rotated = await until(async () => {
    const next = await obtainMachineToken(postern, machine)
    return decodeProtectedHeader(next).alg === 'EdDSA' && next
  })
  t.equal(await isActive(replica, rotated), true, 'an unknown kid makes it read the keys anew')
})

t.test('unknown kids make a server read the keys once a second at most', async (t) => {
  const { postern, token } = await start(t)
  const header = decodeProtectedHeader(token)
  const payload = decodeJwt(token)
  const theirs = await generateKeyPair('ES256')
  let reads = 0
  const { config, db, log } = postern.context
  const counting = db.withPlugin({
    transformQuery: ({ node }) => {
      reads += 1
      return node
    },
    transformResult: async ({ result }) => result,
  })
  const keys = createSigningKeys({ config, db: counting, log })
  await keys.published()
  t.equal(reads, 1)
  const forged = await Promise.all(
    Array.from({ length: 50 }, (_, index) =>
      new SignJWT(payload)
        .setProtectedHeader({ ...(header as { alg: string }), kid: `unknown${index}` })
        .sign(theirs.privateKey),
    ),
  )
  for (const jwt of forged) t.equal(await keys.readAccessToken(jwt), undefined)
  t.ok(reads <= 3, `${reads} reads`)
})

t.test('while the database is away, the keys that were known stay published', async (t) => {
  const { postern } = await start(t)
  const { jwks } = await postern.context.keys.published()
  const { config, log } = postern.context
  let away = false
  const failing = postern.db.withPlugin({
    transformQuery: ({ node }) => {
      if (away) throw Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED', syscall: 'connect' })
      return node
    },
    transformResult: async ({ result }) => result,
  })
  const keys = createSigningKeys({ config, db: failing, log })
  t.equal((await keys.published()).jwks, jwks)
  away = true
  t.equal(await keys.readAccessToken(await unknownKid()), undefined, 'it tries to read them anew')
  t.equal((await keys.published()).jwks, jwks)
})

t.test('private keys are sealed at rest when there is an encryption key, also those that were not', async (t) => {
  const { postern, token } = await start(t)
  const plain = await dump(postern)
  t.match(plain, 'BEGIN PRIVATE KEY', 'without one')
  const der = String((await listSigningKeys(postern.db))[0]?.privateKey).split('\n')[1] as string
  t.match(plain, der)

  const sealing = await startReplica(t, postern, { encryptionKey: ENCRYPTION_KEY })
  const sealed = await dump(postern)
  t.notMatch(sealed, 'PRIVATE KEY')
  t.notMatch(sealed, der)
  t.notMatch(sealed, ENCRYPTION_KEY)
  t.equal(await isActive(sealing, token), true, 'the key is still the same')
  t.equal(await isActive(await startReplica(t, postern, { encryptionKey: ENCRYPTION_KEY }), token), true)

  const made = await startTestPostern(t, { encryptionKey: ENCRYPTION_KEY }, { bare: true })
  t.notMatch(await dump(made), 'PRIVATE KEY', 'one that was made with it')
})

t.test('a sealed key opens as the key that it was sealed as, and no other', async (t) => {
  const postern = await startTestPostern(t, { encryptionKey: ENCRYPTION_KEY }, { bare: true })
  await rotateSigningKey(postern.context, 'ES256', false)
  const [one, other] = await listSigningKeys(postern.db)
  await sql`update signing_key set private_key = ${one?.privateKey} where kid = ${other?.kid}`.execute(postern.db)
  await t.rejects(startReplica(t, postern), { name: 'EncryptionKeyError' })
})

t.test('the wrong encryption key stops the start, and says which setting it is; so does none', async (t) => {
  const postern = await startTestPostern(t, { encryptionKey: ENCRYPTION_KEY }, { bare: true })
  const wrong = { name: 'EncryptionKeyError', message: /^POSTERN_ENCRYPTION_KEY does not open the stored signing keys/ }
  const missing = { name: 'EncryptionKeyError', message: /POSTERN_ENCRYPTION_KEY is not set/ }
  const other = ENCRYPTION_KEY.toUpperCase()
  await t.rejects(startReplica(t, postern, { encryptionKey: other }), wrong)
  await t.rejects(startReplica(t, postern, { encryptionKey: undefined }), missing)
  const { db } = postern
  const as = (encryptionKey: string | undefined) => ({ db, config: { ...postern.context.config, encryptionKey } })
  await t.rejects(rotateSigningKey(as(other), 'ES256', false), wrong, 'the server could not open what this makes')
  await t.rejects(rotateSigningKey(as(undefined), 'ES256', false), missing)
  await t.rejects(rotateSigningKey(as(undefined), 'ES256', true), missing, 'a plain key where they are sealed')
  t.equal((await listSigningKeys(db)).length, 1)

  await rotateSigningKey(as(other), 'ES256', true)
  t.equal((await listSigningKeys(db)).length, 1)
  await startReplica(t, postern, { encryptionKey: other })
  t.pass('a lost key is left behind by withdrawing all')
})

async function start(t: Test) {
  const postern = await startTestPostern(t)
  await issueJwts(postern)
  const machine = await addMachine(postern)
  return { postern, machine, token: await obtainMachineToken(postern, machine, RESOURCE) }
}

async function publishedKey(postern: TestPostern): Promise<JWK> {
  const { keys } = (await (await fetch(`${postern.issuer}/jwks`)).json()) as { keys: JWK[] }
  return keys[0] as JWK
}

/** Everything that is stored about signing keys, as a dump would hold it. */
async function dump({ db }: TestPostern): Promise<string> {
  const { rows } = await sql<{ text: string }>`
    select row_to_json(k)::text || encode(private_key, 'escape') as text from signing_key k`.execute(db)
  return rows.map(({ text }) => text).join('\n')
}

async function unknownKid(): Promise<string> {
  const { privateKey } = await generateKeyPair('ES256')
  return new SignJWT({}).setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid: 'unknown' }).sign(privateKey)
}

function part(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

function hs256(header: object, payload: object, key: string | Buffer): string {
  const signed = `${part(header)}.${part(payload)}`
  return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`
}
