import { createServer, type IncomingMessage } from 'node:http'
import {
  createRemoteJWKSet,
  customFetch,
  decodeProtectedHeader,
  type ExportedJWKSCache,
  jwksCache,
  jwtVerify,
} from 'jose'
import t, { type Test } from 'tap'
import { rotateSigningKey } from '../../src/keys/signing-key.ts'
import { removeEndedRows } from '../../src/store/ended-rows.ts'
import { addMachine, issueJwts, obtainMachineToken } from '../support/access-token.ts'
import { letTimePass } from '../support/database.ts'
import { introspect } from '../support/flow.ts'
import { freePort, RESOURCE, startTestPostern, type TestPostern } from '../support/postern.ts'
import { startReplica } from '../support/replica.ts'
import { until } from '../support/until.ts'

const STEP_SECONDS = 240
const STEPS = 38
const WORKERS = 4
/** Tokens that are older, in steps, are about to expire: a step may pass before one is issued, and before it is shown. */
const OLDEST = 2

interface HeldToken {
  text: string
  issuedAtStep: number
}

t.test('while keys rotate under load, no token that was valid is refused, here or at a resource server', async (t) => {
  const lifetimes = { signingKeySeconds: 3600, accessTokenSeconds: 1200 }
  const first = await startTestPostern(t, lifetimes)
  const servers = [first, await startReplica(t, first)]
  await issueJwts(first)
  const machine = await addMachine(first)
  const resourceServers = await Promise.all(servers.map((server) => startResourceServer(t, first.issuer, server)))

  const held: HeldToken[] = []
  const refused: string[] = []
  const kids = new Set<unknown>()
  const cycles = Array.from({ length: WORKERS }, () => 0)
  let step = 0
  let stopped = false

  /** Gets tokens from one server, and shows new and older ones to the others. */
  const work = async (worker: number) => {
    while (!stopped) {
      const issuedAtStep = step
      const text = await obtainMachineToken(pick(servers), machine)
      const header = decodeProtectedHeader(text)
      kids.add(header.kid)
      held.push({ text, issuedAtStep })
      for (const token of [{ text, issuedAtStep }, pick(held.filter((one) => step - one.issuedAtStep <= OLDEST))]) {
        const facts = `signed with ${decodeProtectedHeader(token.text).kid} at step ${token.issuedAtStep}, shown at ${step}`
        const answer = await introspect({ ...pick(servers), resourceServer: first.resourceServer }, token.text)
        if (answer.active !== true) refused.push(`issuer: ${facts}`)
        const elapsed = (step - token.issuedAtStep) * STEP_SECONDS
        const status = await pick(resourceServers).use(token.text, elapsed)
        if (status !== 200) refused.push(`resource server, ${status}: ${facts}`)
      }
      cycles[worker] = (cycles[worker] ?? 0) + 1
    }
  }
  const load = Promise.all(cycles.map((_, worker) => work(worker)))

  for (step = 1; step <= STEPS; step += 1) {
    await letTimePass(first.db, STEP_SECONDS)
    for (const resourceServer of resourceServers) resourceServer.letTimePass(STEP_SECONDS)
    // as housekeeping does on every replica
    await Promise.all(servers.map(({ context }) => context.keys.tend()))
    await Promise.all(servers.map(({ db, context }) => removeEndedRows(db, context.config, 1000)))
    if (step === 10) await rotateSigningKey(first.context, 'EdDSA', false) // as by command; the other times, by itself
    held.splice(0, held.length, ...held.filter((one) => step - one.issuedAtStep <= OLDEST))
    const before = [...cycles]
    await Promise.race([load, until(() => cycles.every((count, worker) => count > (before[worker] ?? 0)))])
  }
  stopped = true
  await load

  t.same(refused, [])
  t.ok(cycles.every((count) => count >= STEPS))
  t.equal(kids.size, 3, 'three keys have signed')
  t.same(
    (await first.context.keys.published()).algorithms,
    ['ES256'],
    'the key by command was removed, and so was the first',
  )
  for (const { fetches } of resourceServers) {
    t.ok(fetches() <= (STEPS * STEP_SECONDS) / 300 + 1, `/jwks was cached: fetched ${fetches()} times`)
  }
})

/**
 * A resource server that verifies tokens with jose, and fetches /jwks when the age that its headers allow is
 * over, and never before: an unknown kid is refused.
 */
async function startResourceServer(t: Test, issuer: string, { issuer: address }: Pick<TestPostern, 'issuer'>) {
  const cache: Partial<ExportedJWKSCache> = {}
  let fetched = 0
  let maxAgeSeconds = 0
  const fetchKeys = async (url: string, options: object) => {
    const response = await fetch(url, options as RequestInit)
    maxAgeSeconds = Number(/max-age=(\d+)/.exec(response.headers.get('cache-control') ?? '')?.[1])
    fetched += 1
    return response
  }
  const createKeySet = () =>
    createRemoteJWKSet(new URL(`${address}/jwks`), {
      cacheMaxAge: maxAgeSeconds * 1000,
      cooldownDuration: Number.POSITIVE_INFINITY,
      [jwksCache]: cache as ExportedJWKSCache,
      [customFetch]: fetchKeys,
    })
  await createKeySet().reload()
  let keySet = createKeySet()
  const server = createServer(async (request: IncomingMessage, response) => {
    const token = request.headers.authorization?.replace('Bearer ', '') ?? ''
    // time passes in the database alone: this says how much of it since the token was issued
    const currentDate = new Date(Date.now() + Number(request.headers.elapsed) * 1000)
    const options = { issuer, audience: RESOURCE, typ: 'at+jwt', currentDate, clockTolerance: 5 }
    const error = await jwtVerify(token, keySet, options).then(
      () => undefined,
      (reason: Error) => reason,
    )
    response.writeHead(error === undefined ? 200 : 401).end(error?.message)
  })
  const port = await freePort()
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  t.teardown(() => new Promise((resolve) => server.close(resolve)))
  return {
    fetches: () => fetched,
    letTimePass(seconds: number) {
      cache.uat = (cache.uat ?? 0) - seconds * 1000
      keySet = createKeySet()
    },
    async use(token: string, elapsed: number): Promise<string | 200> {
      const headers = { authorization: `Bearer ${token}`, elapsed: String(elapsed) }
      const response = await fetch(`http://127.0.0.1:${port}/`, { headers })
      const text = await response.text()
      return response.status === 200 ? 200 : `${response.status} ${text}`
    },
  }
}

function pick<T>(from: T[]): T {
  const one = from[Math.floor(Math.random() * from.length)]
  if (one === undefined) throw new Error('there is none')
  return one
}
