import { Kysely, PostgresDialect, sql } from 'kysely'
import pg from 'pg'
import t, { type Test } from 'tap'
import { registerClient } from '../../src/clients/register.ts'
import { readConfig } from '../../src/config.ts'
import { startHousekeeping } from '../../src/operations/housekeeping.ts'
import { LONGEST_ACCESS_TOKEN_SECONDS } from '../../src/protocol/introspection.ts'
import type { Database } from '../../src/store/database.ts'
import { removeEndedRows } from '../../src/store/ended-rows.ts'
import { insertIdentityProvider } from '../../src/store/identity-provider.ts'
import { removeResource } from '../../src/store/resource.ts'
import { insertUpstreamSignIn } from '../../src/store/upstream-sign-in.ts'
import { removeUser } from '../../src/store/user.ts'
import { issueSetupLink } from '../../src/users/create.ts'
import { createTestDatabase, letTimePass } from '../support/database.ts'
import { authorizeUrl, type FlowClient, isActive, obtainTokens, pkce, post, refresh } from '../support/flow.ts'
import { identityProvider } from '../support/identity-provider.ts'
import { Person } from '../support/person.ts'
import { addClient, addUser, countRows, startTestPostern, type TestPostern } from '../support/postern.ts'
import { until } from '../support/until.ts'
import { waiting } from '../support/waiting.ts'

/** HOUSEKEEPING_ROWS=1000000 shows the same on a million, in a minute or two. */
const UNUSED_CLIENTS = Number(process.env.HOUSEKEEPING_ROWS ?? 100_000)
/** Rows of one insert, well within the time that a statement may take. */
const INSERTED_AT_ONCE = 100_000

const RETENTION = { unusedClientSeconds: 86_400, refreshGraceSeconds: 120 }
const HOUR = 3600
const DAY = 24 * HOUR

t.test('what has ended goes, each at its time, and nothing else', async (t) => {
  const postern = await startTestPostern(t)
  const operators = await addClient(postern, { redirectUris: ['https://operator.example/callback'] })
  const used = await register(postern)
  await register(postern)
  const tokens = await obtainTokens(postern, used)
  await refresh(postern, used, tokens.refresh_token)
  await failToSignIn(postern)
  await issueSetupLink(postern.context)
  const ends: [afterSeconds: number, removed: Record<string, number>][] = [
    [180, { pair_key: 1 }],
    [900, { throttle: 2 }], // of the account and of the network
    [HOUR, { access_token: 1 }],
    [12 * HOUR, { session: 1 }],
    [DAY, { setup_link: 1, authorization_code: 1, client: 1 }], // the client that was never used
    [31 * DAY, { token_family: 1 }], // it expired after 30 days without use
    [32 * DAY + 60, { client: 1 }], // whose last family went a day before
    [365 * DAY, { known_browser: 1 }],
  ]
  let age = 0
  const removedAt = async (seconds: number) => {
    await letTimePass(postern.db, seconds - age)
    age = seconds
    return cleanUp(postern.db)
  }
  t.same(await removedAt(0), {}, 'nothing has ended yet')
  for (const [afterSeconds, removed] of ends) {
    t.same(await removedAt(afterSeconds - 60), {}, `nothing goes before ${afterSeconds} s`)
    t.same(await removedAt(afterSeconds + 60), removed, `what goes after ${afterSeconds} s`)
  }
  for (const table of ['user', 'resource']) t.equal(await countRows(postern, table), 1, `the ${table} stays`)
  t.match(await postern.db.selectFrom('client').select('id').execute(), [{ id: operators.client_id }])
})

t.test('a grant that was ended goes a day and an hour later, and an operator can find it until then', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  const [ended, living] = [await obtainTokens(postern, client), await obtainTokens(postern, client)]
  await post(postern, '/revoke', { token: ended.refresh_token, client_id: client.client_id })
  await letTimePass(postern.db, DAY + HOUR - 60)
  await cleanUp(postern.db)
  t.equal(await countRows(postern, 'token_family'), 2)
  await letTimePass(postern.db, 120)
  t.match(await cleanUp(postern.db), { token_family: 1 })
  t.equal((await refresh(postern, client, living.refresh_token)).status, 200)
})

t.test('a grant that was ended is kept for as long as its access token could live', async (t) => {
  const postern = await startTestPostern(t, { accessTokenSeconds: LONGEST_ACCESS_TOKEN_SECONDS })
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  const { access_token, refresh_token } = await obtainTokens(postern, client)
  await post(postern, '/revoke', { token: refresh_token, client_id: client.client_id })
  for (let hours = 0; hours < 27; hours += 1) {
    await cleanUp(postern.db)
    t.equal(await isActive(postern, access_token), false, `after ${hours} hours`)
    await letTimePass(postern.db, HOUR)
  }
  t.equal(await countRows(postern, 'token_family'), 0)
})

t.test('a client that refreshes once a week is never taken for unused', async (t) => {
  const postern = await startTestPostern(t)
  const client = await register(postern)
  let tokens = await obtainTokens(postern, client)
  for (let week = 0; week < 10; week += 1) {
    await letTimePass(postern.db, 7 * DAY)
    await cleanUp(postern.db)
    const refreshed = await refresh(postern, client, tokens.refresh_token)
    if (refreshed.status !== 200) return t.fail(`week ${week}: ${JSON.stringify(refreshed.body)}`)
    tokens = refreshed.body as unknown as typeof tokens
  }
})

t.test('a client counts as unused again when the last of its people is removed', async (t) => {
  const postern = await startTestPostern(t)
  const [client, bob] = [await register(postern), new Person()]
  await addUser(postern, 'bob')
  await bob.authorize(authorizeUrl(postern, client, pkce().challenge), { username: 'bob' })
  await obtainTokens(postern, client, {}, bob)
  await obtainTokens(postern, client)
  await removeUser(postern.db, 'bob')
  await cleanUpAfter(postern, 2 * DAY)
  t.equal(await countRows(postern, 'client'), 1, 'alice uses it still')
  await removeUser(postern.db, 'alice')
  await cleanUpAfter(postern, 2 * DAY)
  t.equal(await countRows(postern, 'client'), 0)
})

t.test('a client counts as unused again when the resource server of its grants is removed', async (t) => {
  const postern = await startTestPostern(t)
  await obtainTokens(postern, await register(postern))
  await removeResource(postern.db, postern.resourceServer.id)
  await cleanUpAfter(postern, 2 * DAY)
  t.equal(await countRows(postern, 'client'), 0)
})

t.test('a client that has a grant is never removed, even if a race has marked it as unused', async (t) => {
  const postern = await startTestPostern(t)
  await obtainTokens(postern, await register(postern))
  await sql`update client set unused_since = now() - interval '2 days'`.execute(postern.db)
  t.same(await cleanUp(postern.db), {})
  t.equal(await countRows(postern, 'token_family'), 1)
})

t.test('processes that clean up at the same time leave it to one of them', async (t) => {
  const { db } = await createTestDatabase(t)
  await insertSessions(db, 3000)
  const atOnce = await Promise.all([cleanUp(db, 100), cleanUp(db, 100), cleanUp(db, 100)])
  const removed = [...atOnce, await cleanUp(db)].map(({ session = 0 }) => session)
  t.equal(
    removed.reduce((sum, n) => sum + n),
    3000,
    'each row was removed and counted once',
  )

  await insertSessions(db, 1)
  const held = await db.startTransaction().execute()
  await sql`lock table session in access exclusive mode`.execute(held)
  const first = removeEndedRows(db, RETENTION, 100)
  await until(async () => (await waiting(db)) === 1)
  t.equal(await removeEndedRows(db, RETENTION, 100), undefined, 'the second leaves it to the first')
  await held.commit().execute()
  t.match(await first, { removed: { session: 1 } })
})

t.test('a row that somebody holds is left for the next time, and nobody waits', async (t) => {
  const { db } = await createTestDatabase(t)
  await insertSessions(db, 3)
  await db.transaction().execute(async (trx) => {
    await trx.selectFrom('session').selectAll().limit(1).forUpdate().execute()
    t.match(await cleanUp(db), { session: 2 })
  })
  t.match(await cleanUp(db), { session: 1 })
})

t.test('the process cleans up by itself, batch after batch, and stops when it is told', async (t) => {
  const postern = await startTestPostern(t, {}, { bare: true })
  await insertSessions(postern.db, 3500)
  const stop = startHousekeeping(postern.context, async () => {})
  await until(async () => (await countRows(postern, 'session')) === 0)
  await stop()
  await insertSessions(postern.db, 1)
  t.match(await removeEndedRows(postern.db, RETENTION, 10), { removed: { session: 1 } }, 'nobody else does it now')
})

t.test('very many unused clients go, in batches that an index finds', async (t) => {
  const { url, db } = await createTestDatabase(t)
  await insertUnusedClients(db, { number: UNUSED_CLIENTS, daysAgo: 2, source: '192.0.2.1' })
  await insertUnusedClients(db, { number: 1000, daysAgo: 0, source: '192.0.2.1' })
  await sql`analyze client`.execute(db)
  const removal = await statementOf(t, url, /delete from "client"/, (db) => removeEndedRows(db, RETENTION, 1000))
  const plan = await explain(url, removal)
  t.comment(plan)
  t.match(plan, /Index Scan using client_unused on client/)
  t.notMatch(plan, /Seq Scan on client/)
  t.same(await cleanUp(db, 1000), { client: UNUSED_CLIENTS - 1000 })
  t.equal(await countRows({ db }, 'client'), 1000, 'those that have not been unused for long stay')
})

t.test('one network keeps its newest thousand unused clients, and an index finds the others', async (t) => {
  const { url, db } = await createTestDatabase(t)
  await insertUnusedClients(db, { number: 1000, daysAgo: 0.1, source: '192.0.2.1' })
  await insertUnusedClients(db, { number: 50_000, daysAgo: 0.5, source: '192.0.2.2' })
  await sql`update client set unused_since = null where registration_source = '192.0.2.1' and id like '%7'`.execute(db)
  await sql`analyze client`.execute(db)
  const add = (db: Kysely<Database>) =>
    registerClient({ config: readConfig({}), db }, METADATA, { registration: 'open', network: '192.0.2.1' })
  const insertion = await statementOf(t, url, /insert into client/, add)
  const plan = await explain(url, insertion)
  t.match(plan, /Scan.* (using|on) client_unused_source/)
  t.notMatch(plan, /Seq Scan on client/)
  const newest = await add(db)
  for (let n = 0; n < 200; n += 1) await add(db)
  const { rows } = await sql<{ used: number; unused: number; others: number; has_newest: boolean }>`
    select count(*) filter (where registration_source = '192.0.2.1' and unused_since is null)::integer as used,
      count(*) filter (where registration_source = '192.0.2.1' and unused_since is not null)::integer as unused,
      count(*) filter (where registration_source = '192.0.2.2')::integer as others,
      bool_or(id = ${newest.client_id}) as has_newest
    from client`.execute(db)
  t.same(rows, [{ used: 100, unused: 1000, others: 50_000, has_newest: true }])
})

t.test('sign-ins that were begun at a provider, and never ended, go', async (t) => {
  const postern = await startTestPostern(t, {}, { bare: true })
  await insertIdentityProvider(postern.db, identityProvider())
  const key = { stateHash: Buffer.alloc(32), browserHash: Buffer.alloc(32) }
  await insertUpstreamSignIn(postern.db, key, { providerId: 'company', linkUserId: null, continueQuery: '' }, 900)
  await letTimePass(postern.db, 890)
  t.same(await cleanUp(postern.db), {})
  await letTimePass(postern.db, 20)
  t.same(await cleanUp(postern.db), { upstream_sign_in: 1 })
})

t.test('a grant that is used lives on, and goes when it has not been used for a month', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  const tokens = await obtainTokens(postern, client)
  await letTimePass(postern.db, 20 * DAY)
  const { body } = await refresh(postern, client, tokens.refresh_token)
  await letTimePass(postern.db, 12 * DAY)
  t.match(await cleanUp(postern.db), { removal_check: 1, token_family: undefined })
  t.equal((await cleanUp(postern.db)).removal_check, undefined, 'it is looked at again when it will have expired')
  t.equal((await refresh(postern, client, body.refresh_token as string)).status, 200)
  await letTimePass(postern.db, 30 * DAY)
  t.equal((await cleanUp(postern.db)).token_family, undefined, 'it is kept for a day')
  await letTimePass(postern.db, DAY + 60)
  t.match(await cleanUp(postern.db), { token_family: 1 })
})

t.test('a grant that is used is not removed, however many there are to look at', async (t) => {
  const postern = await startTestPostern(t)
  const app = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  const tokens = [await obtainTokens(postern, app), await obtainTokens(postern, app)]
  await letTimePass(postern.db, 20 * DAY)
  const next = []
  for (const { refresh_token } of tokens) next.push((await refresh(postern, app, refresh_token)).body.refresh_token)
  await letTimePass(postern.db, 12 * DAY)
  await removeEndedRows(postern.db, RETENTION, 1) // one of two is looked at
  for (const token of next) t.equal((await refresh(postern, app, String(token))).status, 200)
})

t.test('what a rotation changes stands in no index', async (t) => {
  const { db } = await createTestDatabase(t)
  const { rows } = await sql<{ name: string }>`
    select distinct attname as name from pg_index join pg_attribute on attrelid = indrelid and attnum = any(indkey)
    where indrelid = 'token_family'::regclass order by 1`.execute(db)
  const columns = ['client_id', 'id', 'lineage_hash', 'removal_check_at', 'resource_id', 'revoked_at', 'user_id']
  t.same(
    rows.map(({ name }) => name),
    columns,
  )
})

t.test('an index finds what has ended, in every table', async (t) => {
  const { url } = await createTestDatabase(t)
  const statements = await record(t, url, (db) => removeEndedRows(db, RETENTION, 1000))
  const removals = statements.filter(({ text }) => /delete from|update/.test(text))
  t.equal(removals.length, 18)
  for (const removal of removals) {
    if (removal.text.includes('setup_link')) continue // one for each start without a user
    if (removal.text.includes('signing_key')) continue // a handful: one for each rotation
    const plan = await explain(url, removal, 'set enable_seqscan = off') // the tables are empty: a scan would be cheaper
    t.notMatch(plan, /Seq Scan/, removal.text.replaceAll(/\s+/g, ' ').slice(0, 80))
  }
})

const METADATA = {
  name: undefined,
  redirectUris: ['https://app.example/callback'],
  tokenEndpointAuthMethod: 'none' as const,
  grantTypes: ['authorization_code'],
  defaultScope: undefined,
  dpopBoundAccessTokens: false,
  description: {},
}

/** Removes everything that has ended now. @returns what went, by name */
async function cleanUp(db: Kysely<Database>, limit = 1): Promise<Record<string, number>> {
  const removed: Record<string, number> = {}
  for (;;) {
    const batch = await removeEndedRows(db, RETENTION, limit)
    if (batch === undefined) continue // another process is at it
    for (const [name, number] of Object.entries(batch.removed)) removed[name] = (removed[name] ?? 0) + number
    if (!batch.more) return removed
  }
}

/** Cleans up, lets time pass, and cleans up again. */
async function cleanUpAfter({ db }: TestPostern, seconds: number): Promise<void> {
  await cleanUp(db)
  await letTimePass(db, seconds)
  await cleanUp(db)
}

/** A client that registers itself. */
async function register({ issuer }: TestPostern): Promise<FlowClient> {
  const response = await fetch(`${issuer}/register`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      redirect_uris: ['https://app.example/callback'],
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
    }),
  })
  return (await response.json()) as FlowClient
}

async function failToSignIn({ issuer }: TestPostern): Promise<void> {
  const [person, address] = [new Person(), `${issuer}/login`]
  const html = await (await person.request(address)).text()
  await person.submit({ address, html }, '/login', { username: 'nobody', password: 'wrong password' })
}

/** Sessions that have ended. */
async function insertSessions(db: Kysely<Database>, number: number): Promise<void> {
  await sql`
    with person as (
      insert into "user" (id, username, username_key, is_administrator, created_at)
      select id, id, id, false, now() from gen_random_uuid() as id returning id
    )
    insert into session (id_hash, user_id, created_at, expires_at)
    select sha256((person.id || ' ' || n)::bytea), person.id, now() - interval '2 hours', now() - interval '1 hour'
    from person, generate_series(1, ${number}::integer) as n`.execute(db)
}

async function insertUnusedClients(
  db: Kysely<Database>,
  { number, daysAgo, source }: { number: number; daysAgo: number; source: string },
): Promise<void> {
  for (let first = 1; first <= number; first += INSERTED_AT_ONCE) {
    const last = Math.min(number, first + INSERTED_AT_ONCE - 1)
    await sql`
      insert into client (
        id, token_endpoint_auth_method, redirect_uris, grant_types, description, registration, registration_source,
        created_at, unused_since
      )
      select ${`${source} ${daysAgo} `} || n, 'none', '{https://app.example/callback}', '{authorization_code}', '{}',
        'open', ${source}, at, at
      from generate_series(${first}::integer, ${last}::integer) as n,
        lateral (select now() - make_interval(secs => ${daysAgo * DAY} - n * 0.001) as at) as instant`.execute(db)
  }
}

interface Statement {
  text: string
  values: unknown[]
}

/** The statements that an action sends. */
async function record(t: Test, url: string, action: (db: Kysely<Database>) => Promise<unknown>): Promise<Statement[]> {
  const statements: Statement[] = []
  const db = new Kysely<Database>({
    dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: url }) }),
    log({ query }) {
      statements.push({ text: query.sql, values: [...query.parameters] })
    },
  })
  t.teardown(() => db.destroy())
  await action(db)
  return statements
}

async function statementOf(
  t: Test,
  url: string,
  pattern: RegExp,
  action: (db: Kysely<Database>) => Promise<unknown>,
): Promise<Statement> {
  const statement = (await record(t, url, action)).find(({ text }) => pattern.test(text))
  if (statement === undefined) throw new Error(`no statement matches ${pattern}`)
  return statement
}

/** How Postgres would carry out a statement. */
async function explain(url: string, { text, values }: Statement, setting = 'select 1'): Promise<string> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(setting)
    const { rows } = await client.query(`explain ${text}`, values)
    return rows.map((row) => row['QUERY PLAN']).join('\n')
  } finally {
    await client.end()
  }
}
