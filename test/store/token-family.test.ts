import { randomBytes, randomInt, randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import { lookUpAccessTokens } from '../../src/store/access-token.ts'
import { insertAuthorizationCode, redeemAuthorizationCode } from '../../src/store/authorization-code.ts'
import { removeClient, setClientDisabled } from '../../src/store/client.ts'
import { listGrants } from '../../src/store/grant.ts'
import { removeResource } from '../../src/store/resource.ts'
import {
  findTokenFamily,
  insertAccessTokenBeside,
  type PairKey,
  type Rotation,
  revokeTokenFamiliesOfUser,
  revokeTokenFamily,
  revokeTokenFamilyOfClient,
  rotateTokenFamilies,
} from '../../src/store/token-family.ts'
import { findUser, removeUser, setUserDisabled } from '../../src/store/user.ts'
import { letTimePass } from '../support/database.ts'
import { addClient, addResource, addUser, countRows, RESOURCE, startTestPostern } from '../support/postern.ts'
import { until } from '../support/until.ts'
import { waiting } from '../support/waiting.ts'

const LIFETIMES = { accessTokenSeconds: 3600, refreshTokenSeconds: 30 * 86_400, refreshGraceSeconds: 120 }

const postern = await startTestPostern(t)
const { db } = postern
const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
const userId = (await findUser(db, 'alice'))?.id ?? ''

/** A family in generation 0, and what its first refresh token consists of. */
interface Family {
  id: string
  lineageHash: Buffer
  secretHash: Buffer
  accessTokenHash: Buffer
}

/** Whose a family is. */
interface Owner {
  clientId: string
  userId: string
  resourceId: string
}

async function startFamily(scope: string[] = ['read', 'write'], owner: Partial<Owner> = {}): Promise<Family> {
  const code = {
    codeHash: randomBytes(32),
    clientId: owner.clientId ?? client.client_id,
    codeChallenge: randomBytes(32).toString('base64url'),
    dpopJkt: undefined,
    approvedFrom: '127.0.0.1',
  }
  const redirectUri = 'https://app.example/callback'
  await insertAuthorizationCode(db, {
    ...code,
    userId: owner.userId ?? userId,
    resourceId: owner.resourceId ?? postern.resourceServer.id,
    redirectUri,
    scope,
    seconds: 60,
  })
  const family = {
    id: randomUUID(),
    lineageHash: randomBytes(32),
    secretHash: randomBytes(32),
    accessTokenHash: randomBytes(32),
  }
  const redemption = { ...code, redirectUri, resourceCandidates: undefined }
  const issued = await redeemAuthorizationCode(db, {
    ...redemption,
    family: {
      ...LIFETIMES,
      familyId: family.id,
      dpopJkt: undefined,
      bindsRefreshToken: false,
      refreshToken: family,
      accessTokenHash: family.accessTokenHash,
      familySeconds: 365 * 86_400,
    },
  })
  if (issued === undefined) throw new Error('not redeemed')
  return family
}

const PAIR_KEY: PairKey = { id: randomUUID(), key: randomBytes(32) }

const isActive = async ({ accessTokenHash }: Family, resourceId = postern.resourceServer.id) => {
  const [found] = await lookUpAccessTokens(db, [{ resourceId, tokenHash: accessTokenHash }])
  return found?.token !== undefined
}

/** A rotation of a family from the given generation, to a new random pair. */
function rotationOf(family: Pick<Family, 'lineageHash' | 'secretHash'>, changes: Partial<Rotation> = {}): Rotation {
  return {
    lineageHash: family.lineageHash,
    generation: 0,
    secretHash: family.secretHash,
    clientId: client.client_id,
    requestedScope: undefined,
    resourceCandidates: undefined,
    newSecretHash: randomBytes(32),
    accessTokenHash: randomBytes(32),
    dpopJkt: undefined,
    bindsRefreshToken: false,
    pairKey: PAIR_KEY,
    lifetimes: LIFETIMES,
    ...changes,
  }
}

const startFamilies = (count: number) => Promise.all(Array.from({ length: count }, () => startFamily()))

function shuffled<T>(things: readonly T[]): T[] {
  const rest = [...things]
  return Array.from(things, () => rest.splice(randomInt(rest.length), 1)[0] as T)
}

const has = async (tokenHash: Buffer) =>
  (await sql`select 1 from access_token where token_hash = ${tokenHash}`.execute(db)).rows.length === 1

t.test('overlapping batches in any order neither deadlock nor rotate anything twice', async (t) => {
  const families = await startFamilies(50)
  for (let round = 0; round < 4; round += 1) {
    const batches = Array.from({ length: 24 }, () =>
      shuffled(families)
        .slice(0, 30)
        .map((family) => rotationOf(family, { generation: round })),
    )
    const results = await Promise.all(batches.map((batch) => rotateTokenFamilies(db, batch)))
    const won = results.flatMap((issued, batch) =>
      (batches[batch] ?? []).filter((_, entry) => issued[entry] !== undefined),
    )
    const winners = new Map(won.map((rotation) => [rotation.lineageHash.toString('hex'), rotation]))
    t.equal(won.length, winners.size, 'no family was rotated twice')
    t.equal(
      winners.size,
      new Set(batches.flat().map((one) => one.lineageHash.toString('hex'))).size,
      'and every one once',
    )
    for (const family of families) {
      const rotation = winners.get(family.lineageHash.toString('hex'))
      if (rotation === undefined) continue
      const stored = await findTokenFamily(db, family.lineageHash, 120)
      t.match(stored, { generation: round + 1, secretHash: rotation.newSecretHash, pairKey: PAIR_KEY.key })
      family.secretHash = rotation.newSecretHash
      family.accessTokenHash = rotation.accessTokenHash
    }
    t.equal(winners.size, 50, 'with so many batches all families are in one')
  }
  for (const { accessTokenHash } of families) t.equal(await has(accessTokenHash), true)
  const { rows } = await sql<{ n: number }>`
    select count(*)::integer as n from access_token where family_id = any(${families.map(({ id }) => id)}::uuid[])`.execute(
    db,
  )
  t.equal(rows[0]?.n, 50, 'one access token for each family')
})

t.test('each entry of a batch is answered in its place, whatever happens to the others', async (t) => {
  const [good, replayed, foreign, revoked, narrow, expired] = (await startFamilies(6)) as [
    Family,
    Family,
    Family,
    Family,
    Family,
    Family,
  ]
  await rotateTokenFamilies(db, [rotationOf(replayed)])
  await revokeTokenFamily(db, revoked.id, 'test')
  await sql`update token_family set expires_at = now() where id = ${expired.id}`.execute(db)
  const batch = [
    rotationOf(replayed),
    rotationOf(narrow, { requestedScope: ['write', 'unknown'] }),
    rotationOf(foreign, { clientId: 'other' }),
    rotationOf({ lineageHash: randomBytes(32), secretHash: randomBytes(32) }),
    rotationOf(good),
    rotationOf(revoked),
    rotationOf(expired),
  ]
  const issued = await rotateTokenFamilies(db, batch)
  t.same(
    issued.map((one) => one?.scope),
    [undefined, 'write', undefined, undefined, 'read write', undefined, undefined],
  )
  t.same(await rotateTokenFamilies(db, []), [])
})

t.test('every condition stands on the row: nothing changes when one fails', async (t) => {
  const family = await startFamily(['read'])
  const before = await sql`select * from token_family where id = ${family.id}`.execute(db)
  for (const [name, changes] of Object.entries({
    generation: { generation: 1 },
    secret: { secretHash: randomBytes(32) },
    client: { clientId: 'other' },
    scope: { requestedScope: ['write'] },
    resource: { resourceCandidates: ['https://other.example.com'] },
    'no usable resource': { resourceCandidates: [] },
  } as Record<string, Partial<Rotation>>)) {
    t.same(await rotateTokenFamilies(db, [rotationOf(family, changes)]), [undefined], name)
  }
  await setUserDisabled(db, 'alice', true)
  t.same(await rotateTokenFamilies(db, [rotationOf(family)]), [undefined], 'user disabled')
  await setUserDisabled(db, 'alice', false)
  await setClientDisabled(db, client.client_id, true)
  t.same(await rotateTokenFamilies(db, [rotationOf(family)]), [undefined], 'client disabled')
  await setClientDisabled(db, client.client_id, false)
  const after = await sql`select * from token_family where id = ${family.id}`.execute(db)
  t.same(after.rows, before.rows)
  t.equal(await has(family.accessTokenHash), true)
  t.match(await rotateTokenFamilies(db, [rotationOf(family, { resourceCandidates: [RESOURCE] })]), [
    { scope: 'read', expiresInSeconds: 3600 },
  ])
  t.equal(await has(family.accessTokenHash), false, 'the superseded access token has gone')
})

t.test('a rotation that waits for a revocation to commit changes nothing', async (t) => {
  const family = await startFamily()
  const rotation = rotationOf(family)
  const outcome = await db.transaction().execute(async (trx) => {
    await revokeTokenFamily(trx, family.id, 'test')
    const waiting = rotateTokenFamilies(db, [rotation])
    await someoneWaits()
    return { waiting }
  })
  t.same(await outcome.waiting, [undefined])
  t.equal(await has(rotation.accessTokenHash), false)
})

/** Resolves when a statement waits for a lock that another transaction holds. */
function someoneWaits(): Promise<boolean> {
  return until(async () => {
    const { rows } = await sql`
      select 1 from pg_locks l join pg_stat_activity a using (pid)
      where not l.granted and a.datname = current_database()`.execute(db)
    return rows.length > 0
  })
}

t.test('of the superseded generations eight are kept, the newest first', async (t) => {
  const family = await startFamily()
  const hashes = [family.secretHash]
  for (let generation = 0; generation < 10; generation += 1) {
    const rotation = rotationOf({ ...family, secretHash: hashes[generation] as Buffer }, { generation })
    hashes.push(rotation.newSecretHash)
    await rotateTokenFamilies(db, [rotation])
    if (generation === 4) await letTimePass(db, 100)
  }
  const wide = await findTokenFamily(db, family.lineageHash, 1000)
  t.equal(wide?.generation, 10)
  t.same(
    wide?.superseded,
    [9, 8, 7, 6, 5, 4, 3, 2].map((generation) => ({ generation, secretHash: hashes[generation] })),
  )
  const narrow = await findTokenFamily(db, family.lineageHash, 60)
  t.same(
    narrow?.superseded.map(({ generation }) => generation),
    [9, 8, 7, 6, 5],
    'of those the ones whose window is open',
  )
  t.same((await findTokenFamily(db, family.lineageHash, 0))?.superseded, [])
  const { rows } = await sql<{ n: number; m: number }>`
    select cardinality(superseded_secret_hashes) as n, cardinality(superseded_at) as m
    from token_family where id = ${family.id}`.execute(db)
  t.same(rows, [{ n: 8, m: 8 }], 'so the row does not grow')
})

t.test('each question of a batch is answered in its place, for the resource server that asks', async (t) => {
  const [family, other] = (await startFamilies(2)) as [Family, Family]
  const elsewhere = await addResource(postern, 'https://elsewhere.example.com')
  await revokeTokenFamily(db, other.id, 'test')
  const resourceId = postern.resourceServer.id
  const answers = await lookUpAccessTokens(db, [
    { resourceId: randomUUID(), tokenHash: family.accessTokenHash },
    { resourceId, tokenHash: family.accessTokenHash },
    { resourceId: elsewhere.id, tokenHash: family.accessTokenHash },
    { resourceId, tokenHash: undefined },
    { resourceId, tokenHash: other.accessTokenHash },
    { resourceId, tokenHash: family.accessTokenHash },
  ])
  t.same(
    answers.map((answer) => answer && [answer.resourceUri, answer.token?.scope]),
    [
      undefined,
      [RESOURCE, 'read write'],
      ['https://elsewhere.example.com', undefined],
      [RESOURCE, undefined],
      [RESOURCE, undefined],
      [RESOURCE, 'read write'],
    ],
  )
})

t.test('a family that has ended issues nothing beside its pair', async (t) => {
  const family = await startFamily()
  const token = { tokenHash: randomBytes(32), scope: 'read', dpopJkt: undefined, seconds: 60 }
  t.match(await insertAccessTokenBeside(db, family.id, token), { scope: 'read', expiresInSeconds: 60 })
  t.equal(await revokeTokenFamily(db, family.id, 'test'), true)
  t.equal(await revokeTokenFamily(db, family.id, 'test'), false, 'ending it again is harmless')
  t.equal(await insertAccessTokenBeside(db, family.id, { ...token, tokenHash: randomBytes(32) }), undefined)
})

t.test('a client ends a family by its lineage, if it is its own', async (t) => {
  const family = await startFamily()
  await rotateTokenFamilies(db, [rotationOf(family)])
  t.equal(await revokeTokenFamilyOfClient(db, family.lineageHash, 'other'), undefined)
  t.equal(await revokeTokenFamilyOfClient(db, family.lineageHash, client.client_id), family.id)
  t.equal(await revokeTokenFamilyOfClient(db, family.lineageHash, client.client_id), undefined)
  const stored = db.selectFrom('token_family').select('revoked_reason').where('id', '=', family.id)
  t.same(await stored.execute(), [{ revoked_reason: 'revoked_by_client' }])
})

t.test('a family can be ended while it rotates, and is ended then', async (t) => {
  const family = await startFamily()
  const ending = await db.transaction().execute(async (trx) => {
    t.match(await rotateTokenFamilies(trx, [rotationOf(family)]), [{ scope: String }])
    const ended = revokeTokenFamily(db, family.id, 'test')
    await until(async () => (await waiting(db)) === 1)
    return { ended }
  })
  t.equal(await ending.ended, true)
  t.match(await findTokenFamily(db, family.lineageHash, 120), { ended: true, generation: 1 })
  t.equal(await has(family.accessTokenHash), false)
})

t.test('a key is kept once for all families, for as long as the longest of their windows', async (t) => {
  const families = await startFamilies(3)
  const pairKey = { id: randomUUID(), key: randomBytes(32) }
  const keptSeconds = async () => {
    const { rows } = await sql<{ seconds: number }>`
      select round(extract(epoch from ends_at - now()))::integer as seconds from pair_key where id = ${pairKey.id}`.execute(
      db,
    )
    return rows.map(({ seconds }) => seconds)
  }
  const rotate = async (family: Family | undefined, refreshGraceSeconds: number) => {
    const lifetimes = { ...LIFETIMES, refreshGraceSeconds }
    t.match(await rotateTokenFamilies(db, [rotationOf(family as Family, { pairKey, lifetimes })]), [{ scope: String }])
    return keptSeconds()
  }
  t.same(await rotate(families[0], 0), [], 'without a window there is nothing to keep')
  t.same(await rotate(families[1], 120), [180], 'a minute longer, so that it needn’t be written each time')
  t.same(await rotate(families[2], 600), [660])
  const [last] = (await startFamilies(1)) as [Family]
  t.same(await rotate(last, 120), [660], 'a shorter window doesn’t shorten it')
  const batch = (await startFamilies(3)).map((family, n) =>
    rotationOf(family, { pairKey, lifetimes: { ...LIFETIMES, refreshGraceSeconds: [60, 900, 700][n] ?? 0 } }),
  )
  await rotateTokenFamilies(db, batch)
  t.same(await keptSeconds(), [960], 'of a batch the longest counts')
})

t.test('a rotation with a key that has been erased brings it back', async (t) => {
  const [first, second] = (await startFamilies(2)) as [Family, Family]
  const pairKey = { id: randomUUID(), key: randomBytes(32) }
  await rotateTokenFamilies(db, [rotationOf(first, { pairKey })])
  await sql`delete from pair_key where id = ${pairKey.id}`.execute(db)
  t.match(await findTokenFamily(db, first.lineageHash, 120), { pairKey: null, superseded: [] })
  await rotateTokenFamilies(db, [rotationOf(second, { pairKey })])
  t.match(await findTokenFamily(db, second.lineageHash, 120), { pairKey: pairKey.key, superseded: [{ generation: 0 }] })
})

t.test('ending a grant ends that installation, and forgets the consent', async (t) => {
  const [family, sibling] = (await startFamilies(2)) as [Family, Family]
  await sql`
    insert into consent (user_id, client_id, resource_id, redirect_uri, scope, granted_at)
    values (${userId}, ${client.client_id}, ${postern.resourceServer.id}, 'https://app.example/', '{read}', now())`.execute(
    db,
  )
  t.equal(await revokeTokenFamily(db, family.id, 'grant_revoked'), true)
  t.equal(await revokeTokenFamily(db, family.id, 'grant_revoked'), false)
  t.equal(await countRows(postern, 'consent'), 0)
  const grants = await listGrants(db, { userId, clientId: client.client_id })
  t.notOk(grants.some(({ id }) => id === family.id))
  t.match(
    grants.find(({ id }) => id === sibling.id),
    { username: 'alice', clientId: client.client_id, resource: RESOURCE, scope: ['read', 'write'] },
  )
  t.same(await listGrants(db, { userId: randomUUID() }), [])
})

t.test('a grace window that has grown since a rotation opens nothing again', async (t) => {
  const windowOf = async (family: Family, graceSeconds: number) =>
    (await findTokenFamily(db, family.lineageHash, graceSeconds))?.superseded.map(({ generation }) => generation)
  const short = await startFamily()
  await rotateTokenFamilies(db, [rotationOf(short, { lifetimes: { ...LIFETIMES, refreshGraceSeconds: 10 } })])
  t.same(await windowOf(short, 1000), [0])
  await letTimePass(db, 11)
  t.same(await windowOf(short, 1000), [], 'its pair may have been erased')

  const none = await startFamily()
  const first = rotationOf(none)
  await rotateTokenFamilies(db, [{ ...first, lifetimes: { ...LIFETIMES, refreshGraceSeconds: 0 } }])
  t.same(await windowOf(none, 1000), [], 'no pair was kept')
  const second = rotationOf({ ...none, secretHash: first.newSecretHash }, { generation: 1 })
  await rotateTokenFamilies(db, [{ ...second, lifetimes: { ...LIFETIMES, refreshGraceSeconds: 10 } }])
  t.same(await windowOf(none, 1000), [1], 'and the generation before stays a replay')
})

t.test('a person who ends everything and rotations that come meanwhile do not wait for one another', async (t) => {
  for (let round = 0; round < 10; round += 1) {
    const families = await startFamilies(60)
    const rotations = shuffled(families).map((family) => rotationOf(family))
    const [rotated, ended] = await Promise.all([
      rotateTokenFamilies(db, rotations),
      revokeTokenFamiliesOfUser(db, userId, undefined),
    ])
    t.equal(rotated.length, 60)
    t.ok(
      families.every(({ id }) => ended.includes(id)),
      'each has ended',
    )
  }
})

t.test('with a client, a person or a resource server go its families, and no others', async (t) => {
  const own = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  const bob = await addUser(postern, 'bob')
  const { id: resourceId } = await addResource(postern, 'https://removed.example.com')
  const stays = await startFamily()
  const removals: [owner: Partial<Owner>, remove: () => Promise<number | undefined>][] = [
    [{ clientId: own.client_id }, () => removeClient(db, own.client_id)],
    [{ userId: bob }, () => removeUser(db, 'bob')],
    [{ resourceId }, () => removeResource(db, resourceId)],
  ]
  for (const [owner, remove] of removals) {
    const [living, ended] = [await startFamily(['read'], owner), await startFamily(['read'], owner)]
    await revokeTokenFamily(db, ended.id, 'test')
    t.equal(await remove(), 1, 'living grants that ended')
    const left = await db.selectFrom('token_family').where('id', 'in', [living.id, ended.id]).select('id').execute()
    t.same(left, [])
    t.equal(await isActive(living, owner.resourceId), false)
    t.equal(await remove(), undefined)
  }
  t.equal(await isActive(stays), true)
})

t.test(
  'a person and a client of theirs are removed at the same time, and neither waits for the other in a circle',
  async (t) => {
    for (let round = 0; round < 10; round += 1) {
      const own = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
      await sql`update client set registration = 'open' where id = ${own.client_id}`.execute(db)
      const owner = { clientId: own.client_id, userId: await addUser(postern, `person${round}`) }
      await Promise.all(Array.from({ length: 20 }, () => startFamily(['read'], owner)))
      const ended = await Promise.all([removeUser(db, `person${round}`), removeClient(db, own.client_id)])
      t.ok(ended.includes(20), 'one of them ends all')
    }
  },
)

t.test('a client that comes back after its removal has nothing of what it had before', async (t) => {
  const [left, live] = (await startFamilies(2)) as [Family, Family]
  t.match(await rotateTokenFamilies(db, [rotationOf(live)]), [{ scope: String }])
  const comeBack = (as: string | undefined) =>
    sql`update client set incarnation = ${as} where id = ${client.client_id}`.execute(db)
  const { rows } = await sql<{ incarnation: string }>`
    select incarnation from client where id = ${client.client_id}`.execute(db)
  await comeBack(randomUUID())
  t.equal(await isActive(left), false)
  t.same(await rotateTokenFamilies(db, [rotationOf(left)]), [undefined])
  t.match(await findTokenFamily(db, left.lineageHash, 120), { ended: true })
  t.match(await findTokenFamily(db, live.lineageHash, 120), { ended: true }, 'so no superseded token converges')
  t.equal(await isActive(await startFamily()), true)
  await comeBack(rows[0]?.incarnation)
  t.equal(await isActive(left), true)
})
