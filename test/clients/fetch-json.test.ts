import { once } from 'node:events'
import { createServer, type RequestListener, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { createFetchJson, FetchError, type Network } from '../../src/clients/fetch-json.ts'
import { isPublicAddress } from '../../src/clients/public-address.ts'
import { until } from '../support/until.ts'
import { openWebsites, PUBLIC_ADDRESS } from '../support/websites.ts'

const ADDRESS = 'https://app.example/client.json'
const LIMIT = 5 * 1024

/** Why nothing was fetched. */
async function problemOf(fetched: Promise<unknown>): Promise<Pick<FetchError, 'reason' | 'passing'>> {
  try {
    await fetched
  } catch (error) {
    if (error instanceof FetchError) return { reason: error.reason, passing: error.passing }
    throw error
  }
  throw new Error('it was fetched')
}

const json = { 'content-type': 'application/json' }

t.test('a JSON document is fetched with nothing that identifies a user', async (t) => {
  const websites = await openWebsites(t)
  let asked: unknown
  websites.pages.set(ADDRESS, (request, response) => {
    asked = { method: request.method, headers: request.headers }
    response.writeHead(200, { ...json, 'cache-control': 'max-age=60', 'x-two': ['a', 'b'] }).end('{"a":1}')
  })
  const { value, headers } = await createFetchJson(false, websites.network)(ADDRESS, LIMIT)
  t.same(value, { a: 1 })
  t.match(headers, { 'cache-control': 'max-age=60' })
  t.match(asked, { method: 'GET', headers: { host: 'app.example', accept: 'application/json' } })
  t.notMatch(asked, { headers: { cookie: /./ } })
  t.notMatch(asked, { headers: { authorization: /./ } })
  t.same(websites.connected, [[PUBLIC_ADDRESS]])
})

t.test('only an answer that is whole, plain and JSON counts', async (t) => {
  const cases: [string, RequestListener, Awaited<ReturnType<typeof problemOf>>][] = [
    [
      'redirect',
      (_, response) => response.writeHead(302, { ...json, location: 'https://app.example/elsewhere' }).end('{}'),
      { reason: 'status_not_200', passing: false },
    ],
    ['201', (_, response) => response.writeHead(201, json).end('{}'), { reason: 'status_not_200', passing: false }],
    ['404', (_, response) => response.writeHead(404, json).end('{}'), { reason: 'status_not_200', passing: false }],
    ['503', (_, response) => response.writeHead(503, json).end('{}'), { reason: 'status_not_200', passing: true }],
    [
      'HTML',
      (_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('{}'),
      { reason: 'media_type_not_json', passing: false },
    ],
    [
      'no media type',
      (_, response) => response.writeHead(200).end('{}'),
      { reason: 'media_type_not_json', passing: false },
    ],
    [
      'compressed',
      (_, response) => response.writeHead(200, { ...json, 'content-encoding': 'gzip' }).end(gzipSync('{}')),
      { reason: 'content_encoded', passing: false },
    ],
    ['no JSON', (_, response) => response.writeHead(200, json).end('{"a":'), { reason: 'not_json', passing: false }],
    [
      'no UTF-8',
      (_, response) => response.writeHead(200, json).end(Buffer.from([0x22, 0xff, 0x22])),
      { reason: 'not_json', passing: false },
    ],
    [
      'cut off',
      (_, response) => {
        response.writeHead(200, { ...json, 'content-length': '100' }).write('{')
        setImmediate(() => response.destroy())
      },
      { reason: 'connection_failed', passing: true },
    ],
    [
      'announced as too large',
      (_, response) => response.writeHead(200, { ...json, 'content-length': '5121' }).end(' '.repeat(5121)),
      { reason: 'too_large', passing: false },
    ],
  ]
  const websites = await openWebsites(t)
  websites.pages.set('https://app.example/elsewhere', { a: 1 })
  for (const [name, page, problem] of cases) {
    websites.pages.set(ADDRESS, page)
    t.same(await problemOf(createFetchJson(false, websites.network)(ADDRESS, LIMIT)), problem, name)
  }
  t.notOk(websites.fetched.includes('https://app.example/elsewhere'), 'no redirect is followed')
  websites.pages.set(ADDRESS, (_, response) => {
    response.writeHead(200, { 'content-type': 'application/oauth-client-metadata+json; charset=utf-8' })
    response.end(`{}${' '.repeat(LIMIT - 2)}`)
  })
  t.same((await createFetchJson(false, websites.network)(ADDRESS, LIMIT)).value, {}, 'any JSON type, up to the limit')
})

t.test('a body of 10 MB is given up after its first bytes', async (t) => {
  const websites = await openWebsites(t)
  let sent = 0
  const closed = new Promise<void>((resolve) => {
    websites.pages.set(ADDRESS, (_, response) => {
      response.writeHead(200, json)
      const push = () => {
        while (sent < 10_000_000 && !response.destroyed) {
          sent += 16_384
          if (!response.write(' '.repeat(16_384))) return response.once('drain', push)
        }
        return response.end('{}')
      }
      response.on('close', resolve)
      push()
    })
  })
  t.match(await problemOf(createFetchJson(false, websites.network)(ADDRESS, LIMIT)), {
    reason: 'too_large',
    passing: false,
  })
  await closed
  t.ok(sent < 5_000_000, `${sent} bytes were sent`)
})

t.test('time runs out for a slow drip, for headers that never come, and for a name that is never found', async (t) => {
  const websites = await openWebsites(t)
  const impatient = { ...websites.network, seconds: 0.3 }
  let timer: NodeJS.Timeout | undefined
  t.teardown(() => clearInterval(timer))
  websites.pages.set(ADDRESS, (_, response) => {
    response.writeHead(200, json)
    timer = setInterval(() => response.write(' '), 20)
  })
  t.same(await problemOf(createFetchJson(false, impatient)(ADDRESS, LIMIT)), { reason: 'timeout', passing: true })
  websites.pages.set(ADDRESS, () => {})
  t.same(await problemOf(createFetchJson(false, impatient)(ADDRESS, LIMIT)), { reason: 'timeout', passing: true })
  const lost: Network = { ...impatient, resolve: () => new Promise(() => {}) }
  t.same(await problemOf(createFetchJson(false, lost)(ADDRESS, LIMIT)), { reason: 'timeout', passing: true })
})

/** One of each range of the IANA special-purpose registries, and what holds such an address. */
const SPECIAL = [
  '0.0.0.0',
  '0.1.2.3',
  '10.0.0.1',
  '100.64.0.1',
  '100.100.100.200',
  '127.0.0.1',
  '127.255.255.254',
  '169.254.169.254',
  '172.16.0.1',
  '172.31.255.255',
  '192.0.0.1',
  '192.0.0.192',
  '192.0.2.1',
  '192.31.196.1',
  '192.52.193.1',
  '192.88.99.1',
  '192.168.1.1',
  '192.175.48.1',
  '198.18.0.1',
  '198.51.100.1',
  '203.0.113.1',
  '224.0.0.1',
  '240.0.0.1',
  '255.255.255.255',
  '168.63.129.16',
  '::',
  '::1',
  '::7f00:1',
  '::ffff:127.0.0.1',
  '::ffff:10.0.0.1',
  '::ffff:a9fe:a9fe',
  '::ffff:0:127.0.0.1',
  '64:ff9b::7f00:1',
  '64:ff9b::a9fe:a9fe',
  '64:ff9b:1::1',
  '100::1',
  '2001::1',
  '2001:2::1',
  '2001:10::1',
  '2001:20::1',
  '2001:db8::1',
  '2002:7f00:1::',
  '2002:a00:1::',
  '3fff::1',
  '5f00::1',
  'fc00::1',
  'fd00:ec2::254',
  'fe80::1',
  'fe80::1%eth0',
  'fec0::1',
  'ff02::1',
  '4000::1',
  'not an address',
]

t.test('addresses of special use are not public, whatever holds them (RFC 6890)', async (t) => {
  for (const address of SPECIAL) t.notOk(isPublicAddress(address), address)
  for (const address of [PUBLIC_ADDRESS, '1.1.1.1', '2606:4700::1111', '2a00:1450:4001::8a', '::ffff:1.1.1.1'])
    t.ok(isPublicAddress(address), address)
  t.ok(isPublicAddress('64:ff9b::101:101'), 'NAT64 of a public address')
})

t.test('a name with an address that is not public is never connected to', async (t) => {
  const websites = await openWebsites(t)
  websites.pages.set(ADDRESS, {})
  const fetchJson = createFetchJson(false, websites.network)
  for (const address of SPECIAL) {
    websites.addresses.set('app.example', [address])
    t.same(await problemOf(fetchJson(ADDRESS, LIMIT)), { reason: 'address_refused', passing: false }, address)
  }
  websites.addresses.set('app.example', [PUBLIC_ADDRESS, '10.0.0.1'])
  t.match(await problemOf(fetchJson(ADDRESS, LIMIT)), { reason: 'address_refused' }, 'one bad address spoils all')
  websites.addresses.set('app.example', [])
  t.match(await problemOf(fetchJson(ADDRESS, LIMIT)), { reason: 'address_refused' }, 'no address')
  for (const host of [
    '127.0.0.1',
    '0x7f.1',
    '2130706433',
    '017700000001',
    '[::1]',
    '[::ffff:7f00:1]',
    '169.254.169.254',
  ])
    t.match(await problemOf(fetchJson(`https://${host}/client.json`, LIMIT)), { reason: 'address_refused' }, host)
  t.same(websites.connected, [])
  t.same(websites.fetched, [])
})

t.test('rebinding: a name is looked up once, and the connection goes to what was checked', async (t) => {
  const websites = await openWebsites(t)
  websites.pages.set(ADDRESS, { a: 1 })
  let lookups = 0
  const rebinding: Network = {
    ...websites.network,
    resolve: async () => {
      lookups += 1
      return [lookups === 1 ? PUBLIC_ADDRESS : '127.0.0.1']
    },
  }
  const fetchJson = createFetchJson(false, rebinding)
  t.same((await fetchJson(ADDRESS, LIMIT)).value, { a: 1 })
  t.equal(lookups, 1)
  t.same(websites.connected, [[PUBLIC_ADDRESS]])
  t.match(
    await problemOf(fetchJson(ADDRESS, LIMIT)),
    { reason: 'address_refused' },
    'the next fetch sees the new answer',
  )
  t.equal(websites.connected.length, 1)
})

t.test('a name that is not found may be tried again only when its server failed', async (t) => {
  const failing = (code: string): Network => ({
    resolve: async () => {
      throw Object.assign(new Error(code), { code })
    },
  })
  const attempt = (code: string) => problemOf(createFetchJson(false, failing(code))(ADDRESS, LIMIT))
  t.same(await attempt('ENOTFOUND'), { reason: 'name_not_resolved', passing: false })
  t.same(await attempt('ENODATA'), { reason: 'name_not_resolved', passing: false })
  for (const code of ['EAI_AGAIN', 'ETIMEOUT', 'ESERVFAIL', 'EREFUSED', 'ECANCELLED'])
    t.same(await attempt(code), { reason: 'name_not_resolved', passing: true }, code)
})

t.test('only so many fetches are under way at once; more have to wait', async (t) => {
  const websites = await openWebsites(t)
  websites.pages.set(ADDRESS, {})
  let answerAll = () => {}
  const answers = new Promise<string[]>((resolve) => {
    answerAll = () => resolve([PUBLIC_ADDRESS])
  })
  const fetchJson = createFetchJson(false, { ...websites.network, resolve: () => answers })
  const hosts = Array.from({ length: 20 }, (_, n) => `https://app${n}.example/client.json`)
  const underWay = hosts.map((address) => problemOf(fetchJson(address, LIMIT)))
  await t.rejects(fetchJson(ADDRESS, LIMIT), { code: 'temporarily_unavailable', status: 503, retryAfterSeconds: 5 })
  answerAll()
  await Promise.all(underWay)
  t.same((await fetchJson(ADDRESS, LIMIT)).value, {}, 'when they are done there is room again')
})

t.test('one host that answers slowly takes a few of these places, and leaves the others', async (t) => {
  const websites = await openWebsites(t)
  const slow = Array.from({ length: 6 }, (_, n) => `https://app.example/${n}.json`)
  const held: ServerResponse[] = []
  for (const address of slow) {
    websites.pages.set(address, (_, response) => {
      response.writeHead(200, json).write(' ')
      held.push(response)
    })
  }
  websites.pages.set('https://other.example/client.json', { a: 1 })
  const fetchJson = createFetchJson(false, websites.network)
  const [sixth = '', ...five] = slow
  const underWay = five.map((address) => fetchJson(address, LIMIT))
  await until(() => held.length === 5)
  await t.rejects(fetchJson(sixth, LIMIT), { code: 'temporarily_unavailable', reason: 'fetches_busy' })
  t.same((await fetchJson('https://other.example/client.json', LIMIT)).value, { a: 1 })
  for (const response of held) response.end('{}')
  await Promise.all(underWay)
  const next = fetchJson(sixth, LIMIT)
  await until(() => held.length === 6)
  held[5]?.end('{}')
  t.same((await next).value, {}, 'when they are done there is room again')
})

t.test('TLS must prove the name: another host at the same address is not enough', async (t) => {
  const websites = await openWebsites(t)
  websites.pages.set('https://evil.test/client.json', {})
  const { certificateAuthority, ...trustingTheSystem } = websites.network
  t.ok(certificateAuthority)
  const expected = { reason: 'connection_failed', passing: true }
  t.same(await problemOf(createFetchJson(false, websites.network)('https://evil.test/client.json', LIMIT)), expected)
  t.same(await problemOf(createFetchJson(false, trustingTheSystem)(ADDRESS, LIMIT)), expected, 'an unknown authority')
  t.same(websites.fetched, [])
})

t.test('no proxy of the environment is used', async (t) => {
  const websites = await openWebsites(t)
  websites.pages.set(ADDRESS, { a: 1 })
  const before = { ...process.env }
  t.teardown(() => {
    process.env = before
  })
  for (const name of ['HTTP_PROXY', 'HTTPS_PROXY', 'https_proxy', 'ALL_PROXY']) process.env[name] = 'http://127.0.0.1:9'
  process.env.NODE_USE_ENV_PROXY = '1'
  t.same((await createFetchJson(false, websites.network)(ADDRESS, LIMIT)).value, { a: 1 })
})

t.test('http is for loopback in development alone', async (t) => {
  const url = await serveHttp(t)
  t.match(await problemOf(createFetchJson(false)(url, LIMIT)), { reason: 'address_refused' })
  t.same((await createFetchJson(true)(url, LIMIT)).value, { a: 1 })
  t.same((await createFetchJson(true)(url.replace('127.0.0.1', 'localhost'), LIMIT)).value, { a: 1 }, 'by name')
  const websites = await openWebsites(t)
  const fetchJson = createFetchJson(true, websites.network)
  t.match(await problemOf(fetchJson('http://app.example/client.json', LIMIT)), { reason: 'scheme_refused' })
  websites.addresses.set('app.example', ['10.0.0.1'])
  t.match(
    await problemOf(fetchJson(ADDRESS, LIMIT)),
    { reason: 'address_refused' },
    'loopback is not the private network',
  )
})

async function serveHttp(t: Test): Promise<string> {
  const server = createServer((_, response) => response.writeHead(200, json).end('{"a":1}'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/client.json`
}
