import { randomBytes, randomInt, randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import { lookUpAccessTokens } from '../../src/store/access-token.ts'
import {
  findAuthorizationCode,
  insertAuthorizationCode,
  type Redemption,
  redeemAuthorizationCodes,
} from '../../src/store/authorization-code.ts'
import { removeClient, setClientDisabled } from '../../src/store/client.ts'
import { openDatabase } from '../../src/store/connection.ts'
import { removeEndedRows } from '../../src/store/ended-rows.ts'
import type { NewFamily } from '../../src/store/new-family.ts'
import { findUser, setUserDisabled } from '../../src/store/user.ts'
import { hashSecret } from '../../src/tokens/secret.ts'
import { letTimePass } from '../support/database.ts'
import { addClient, addResource, countRows, RESOURCE, startTestPostern } from '../support/postern.ts'

const CALLBACK = 'https://app.example/callback'

const postern = await startTestPostern(t)
const { db } = postern
const client = await addClient(postern, { redirectUris: [CALLBACK] })
const userId = (await findUser(db, 'alice'))?.id ?? ''

/** A redemption with the family that it would start. */
type Attempt = Redemption & NewFamily

/** Keeps a new code, and says how it would be redeemed. */
async function newCode(clientId: string = client.client_id): Promise<Attempt> {
  const proof = {
    codeHash: randomBytes(32),
    clientId,
    redirectUri: CALLBACK,
    codeChallenge: randomBytes(32).toString('base64url'),
    dpopJkt: undefined,
    approvedFrom: '127.0.0.1',
  }
  const code = { ...proof, userId, resourceId: postern.resourceServer.id, scope: ['read', 'write'] }
  await insertAuthorizationCode(db, { ...code, seconds: 60 })
  return { ...proof, ...newFamily(), resourceCandidates: undefined }
}

/** The family that a redemption would start: each attempt has its own. */
function newFamily() {
  return {
    familyId: randomUUID(),
    refreshToken: { lineageHash: randomBytes(32), secretHash: randomBytes(32) },
    accessTokenHash: randomBytes(32),
    bindsRefreshToken: false,
    accessTokenSeconds: 3600,
    refreshTokenSeconds: 86_400,
    familySeconds: 864_000,
  }
}

/** In a statement of its own, so that those at the same time are really concurrent. */
async function redeem(attempt: Attempt) {
  const [issued] = await redeemAuthorizationCodes(db, [{ ...attempt, family: attempt }])
  return issued
}

t.test(
  'a code is redeemed once, and starts one family, whoever comes at the same time (RFC 6749 §4.1.2)',
  async (t) => {
    const code = await newCode()
    const [families, tokens] = [await countRows(postern, 'token_family'), await countRows(postern, 'access_token')]
    const attempts = Array.from({ length: 20 }, () => ({ ...code, ...newFamily() }))
    const results = await Promise.all(attempts.map(redeem))
    const winners = attempts.filter((_, n) => results[n] !== undefined)
    t.equal(winners.length, 1)
    const { issuedAtSeconds, expiresAtSeconds, ...issued } = results.find((one) => one !== undefined) ?? {}
    t.match(issued, {
      scope: 'read write',
      expiresInSeconds: 3600,
      resourceUri: RESOURCE,
      tokenFormat: 'opaque',
      dpopJkt: null,
      userId,
    })
    t.equal(Number(expiresAtSeconds) - Number(issuedAtSeconds), 3600)
    t.equal((await findAuthorizationCode(db, code.codeHash))?.familyId, winners[0]?.familyId)
    t.equal(await countRows(postern, 'token_family'), families + 1)
    t.equal(await countRows(postern, 'access_token'), tokens + 1)
  },
)

t.test('a redemption finds its code by the index, even when it was planned while there were none', async (t) => {
  const postern = await startTestPostern(t)
  const one = openDatabase({ connectionString: postern.databaseUrl }, { poolSize: 1, onError: t.comment })
  t.teardown(() => one.destroy())
  const { client_id: clientId } = await addClient(postern, { redirectUris: [CALLBACK] })
  await sql`vacuum analyze authorization_code`.execute(postern.db)
  const attempt: Attempt = {
    ...newFamily(),
    codeHash: hashSecret(Buffer.from([0, 0, 0, 1])), // sha256(int4send(1)), below
    clientId,
    redirectUri: CALLBACK,
    codeChallenge: 'another',
    resourceCandidates: undefined,
    dpopJkt: undefined,
  }
  const redeemOne = () => redeemAuthorizationCodes(one, [{ ...attempt, family: attempt }])
  await redeemOne()
  await sql`
    insert into authorization_code (
      code_hash, client_id, user_id, resource_id, redirect_uri, code_challenge, scope, created_at, expires_at
    )
    select sha256(int4send(n)), ${clientId}, u.id, r.id, ${CALLBACK}, 'some', '{read}', now(), now() + interval '1 hour'
    from generate_series(1, 1000) n, "user" u, resource r`.execute(one)
  const entriesRead = async () => {
    await sql`select pg_stat_force_next_flush()`.execute(one)
    const { rows } = await sql<{ read: number }>`
      select idx_tup_read::float8 as read from pg_stat_user_indexes where indexrelname = 'authorization_code_pkey'`.execute(
      one,
    )
    return rows[0]?.read ?? 0
  }
  const before = await entriesRead()
  await redeemOne()
  t.equal(await entriesRead(), before + 1, 'its own entry, and none of the others')
})

t.test('overlapping batches in any order neither deadlock nor redeem anything twice', async (t) => {
  const codes = await Promise.all(Array.from({ length: 50 }, () => newCode()))
  const batches = Array.from({ length: 24 }, (_, batch) =>
    codes
      .toSorted(() => randomInt(3) - 1)
      .slice(0, 30 + (batch % 2) * 20)
      .map((code) => ({ ...code, ...newFamily() })),
  )
  const results = await Promise.all(
    batches.map((batch) =>
      redeemAuthorizationCodes(
        db,
        batch.map((attempt) => ({ ...attempt, family: attempt })),
      ),
    ),
  )
  t.equal(results.flat().filter((issued) => issued !== undefined).length, 50, 'each is redeemed once')
})

t.test('every condition stands on the code: nothing changes when one fails', async (t) => {
  const code = await newCode()
  await addResource(postern, 'https://other.example.com')
  for (const [name, changes] of Object.entries({
    code: { codeHash: randomBytes(32) },
    client: { clientId: 'other' },
    redirect_uri: { redirectUri: 'https://app.example/other' },
    challenge: { codeChallenge: 'x'.repeat(43) },
    resource: { resourceCandidates: ['https://other.example.com'] },
    'no usable resource': { resourceCandidates: [] },
  } as Record<string, Partial<Redemption>>)) {
    t.equal(await redeem({ ...code, ...changes }), undefined, name)
  }
  await setUserDisabled(db, 'alice', true)
  t.equal(await redeem(code), undefined, 'user disabled')
  await setUserDisabled(db, 'alice', false)
  await setClientDisabled(db, client.client_id, true)
  t.equal(await redeem(code), undefined, 'client disabled')
  await setClientDisabled(db, client.client_id, false)
  t.match(await findAuthorizationCode(db, code.codeHash), {
    familyId: null,
    redeemedSecondsAgo: undefined,
    expired: false,
  })
  t.ok(await redeem({ ...code, redirectUri: undefined, resourceCandidates: [`${RESOURCE}/`, RESOURCE] }))
})

t.test('an expired code is not redeemed', async (t) => {
  const code = await newCode()
  await letTimePass(db, 61)
  t.equal(await redeem(code), undefined)
  t.match(await findAuthorizationCode(db, code.codeHash), { expired: true, resourceUri: RESOURCE })
})

t.test('how long ago a code was redeemed is told by the database’s clock', async (t) => {
  const code = await newCode()
  await redeem(code)
  await letTimePass(db, 30)
  const seconds = (await findAuthorizationCode(db, code.codeHash))?.redeemedSecondsAgo ?? 0
  t.ok(seconds >= 30 && seconds < 40, String(seconds))
})

t.test('no lifetime exceeds the one that it is part of', async (t) => {
  const short = { accessTokenSeconds: 3600, refreshTokenSeconds: 1800, familySeconds: 900 }
  const code = await newCode()
  t.match(await redeem({ ...code, ...short }), { expiresInSeconds: 900 })
  const other = await newCode()
  t.match(await redeem({ ...other, ...short, familySeconds: 86_400 }), { expiresInSeconds: 1800 })
})

t.test('a family without refresh token ends with its access token', async (t) => {
  const code = await newCode()
  t.ok(await redeem({ ...code, refreshToken: undefined }))
  const { rows } = await sql<{ lineage_hash: null; seconds: number }>`
    select lineage_hash, extract(epoch from expires_at - created_at)::float8 as seconds
    from token_family where id = ${code.familyId}`.execute(db)
  t.same(rows, [{ lineage_hash: null, seconds: 3600 }])
})

t.test('a client that registered itself is in use from its first grant on', async (t) => {
  const own = await addClient(postern, { redirectUris: [CALLBACK] })
  await sql`update client set registration = 'open', unused_since = now() where id = ${own.client_id}`.execute(db)
  await redeem(await newCode(own.client_id))
  const { rows } = await sql`select unused_since from client where id = ${own.client_id}`.execute(db)
  t.same(rows, [{ unused_since: null }])
})

t.test('a redemption races the removal of its client: no token that it issues is active without it', async (t) => {
  for (let round = 0; round < 12; round += 1) {
    const own = await addClient(postern, { redirectUris: [CALLBACK] })
    await sql`
      update client set registration = 'open', unused_since = now() - interval '2 days'
      where id = ${own.client_id}`.execute(db)
    const code = await newCode(own.client_id)
    const [redeemed] = await Promise.all([
      redeem(code),
      round % 2 === 0 ? removeEndedRows(db, postern.context.config, 100) : removeClient(db, own.client_id),
    ])
    const { rows: clients } = await sql`select 1 from client where id = ${own.client_id}`.execute(db)
    const { rows: families } = await sql`select 1 from token_family where id = ${code.familyId}`.execute(db)
    const token = { resourceId: postern.resourceServer.id, tokenHash: code.accessTokenHash }
    const [found] = await lookUpAccessTokens(db, [token])
    if (clients.length === 0) t.equal(found?.token, undefined, 'the client has gone, and its token with it')
    else t.match([redeemed, families, found?.token], [{}, [{}], { clientId: own.client_id }], 'the client is in use')
  }
})

t.test('a used code is found for a day', async (t) => {
  const code = await newCode()
  await redeem(code)
  await letTimePass(db, 86_300)
  await removeEndedRows(db, postern.context.config, 1000)
  t.equal((await findAuthorizationCode(db, code.codeHash))?.familyId, code.familyId)
  await letTimePass(db, 200)
  await removeEndedRows(db, postern.context.config, 1000)
  t.equal(await findAuthorizationCode(db, code.codeHash), undefined)
})
