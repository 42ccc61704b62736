import { once } from 'node:events'
import { Agent, type IncomingMessage, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { basic } from '../support/credentials.ts'
import { Person } from '../support/person.ts'
import { PASSWORD } from '../support/postern.ts'
import { type PosternProcess, startPosternProcess } from '../support/postern-process.ts'
import { until } from '../support/until.ts'
import { waiting } from '../support/waiting.ts'

/** Ends requests that wait in the database. */
type Release = () => Promise<void>

/** Makes requests that read a table wait. */
async function hold({ db }: PosternProcess, table: string): Promise<Release> {
  const held = await db.startTransaction().execute()
  await sql`lock table ${sql.table(table)} in access exclusive mode`.execute(held)
  return async () => {
    await held.commit().execute()
  }
}

/** Asks about a token that doesn't exist. */
async function startIntrospection(postern: PosternProcess): Promise<() => Promise<Response>> {
  const { client_id, client_secret } = await postern.addResource('https://mcp.example.com/mcp')
  const headers = { authorization: basic(client_id, client_secret) }
  return () =>
    fetch(`${postern.issuer}/introspect`, { method: 'POST', body: new URLSearchParams({ token: 'x' }), headers })
}

/** Opens a connection, and says when it is closed. */
async function openConnection(
  t: Test,
  { port }: PosternProcess,
): Promise<{ socket: Socket; closed: Promise<unknown> }> {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  const closed = new Promise((resolve) => socket.once('close', resolve))
  await once(socket, 'connect')
  t.teardown(() => socket.destroy())
  return { socket, closed }
}

async function refusesConnections({ port }: PosternProcess): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ECONNREFUSED'
  } finally {
    socket.destroy()
  }
}

/** The exit code of the process, and how long it took to end after an action. */
async function ending({ server: { process: child } }: PosternProcess, action: () => void) {
  const started = performance.now()
  const exited = once(child, 'exit')
  action()
  const [code] = await exited
  return { code, seconds: (performance.now() - started) / 1000 }
}

t.test('requests under way are finished, and no others are taken', async (t) => {
  const postern = await startPosternProcess(t)
  const introspect = await startIntrospection(postern)
  const release = await hold(postern, 'access_token')
  const answers: Promise<Response>[] = []
  for (const under of [1, 2]) {
    answers.push(introspect()) // in a batch of its own, since the one before it has gone
    await until(async () => (await waiting(postern.db)) === under)
  }
  const ended = ending(postern, () => postern.server.process.kill('SIGTERM'))
  await until(() => refusesConnections(postern))
  t.equal(postern.server.process.exitCode, null, 'it waits for them')
  await release()
  for (const answer of await Promise.all(answers)) {
    t.equal(answer.status, 200)
    t.equal(answer.headers.get('connection'), 'close', 'the connection is not kept for another')
    t.same(await answer.json(), { active: false })
  }
  t.equal((await ended).code, 0)
})

t.test('a wave of people who are signing in is let in', async (t) => {
  const postern = await startPosternProcess(t)
  const address = `${postern.issuer}/login`
  const people = await Promise.all(
    Array.from({ length: 10 }, async () => {
      const person = new Person()
      return { person, html: await (await person.request(address)).text() }
    }),
  )
  const answers = Promise.all(
    people.map(({ person, html }) =>
      person.submit({ address, html }, '/login', { username: 'alice', password: PASSWORD }),
    ),
  )
  await until(async () => {
    const { rows } = await sql<{ n: number }>`select coalesce(sum(attempts), 0)::integer as n from throttle`.execute(
      postern.db,
    )
    return (rows[0]?.n ?? 0) >= 20 // each counts for the account and for the network: all have come
  })
  const { code } = await ending(postern, () => postern.server.process.kill('SIGINT'))
  t.same(
    (await answers).map(({ status }) => status),
    Array(10).fill(303),
  )
  t.equal(code, 0)
})

t.test('connections without a request hold nothing up', async (t) => {
  const postern = await startPosternProcess(t)
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  t.teardown(() => agent.destroy())
  const used = request(`${postern.issuer}/health/live`, { agent }).end()
  const [answer] = (await once(used, 'response')) as [IncomingMessage]
  t.equal(answer.headers.connection, 'keep-alive')
  await answer.resume().toArray()
  const unused = await openConnection(t, postern) // as a browser or a load balancer opens some in advance
  const half = await openConnection(t, postern)
  half.socket.write('POST /token HTTP/1.1\r\nhost: local')
  await fetch(`${postern.issuer}/health/live`) // what was written before has arrived
  const { code, seconds } = await ending(postern, () => postern.server.process.kill('SIGTERM'))
  t.equal(code, 0)
  t.ok(seconds < 8, `it took ${seconds} s`)
  await Promise.all([unused.closed, half.closed])
})

t.test('a request that never becomes whole is cut, and one that is whole is still answered', async (t) => {
  const postern = await startPosternProcess(t)
  const introspect = await startIntrospection(postern)
  const release = await hold(postern, 'access_token')
  const answer = introspect()
  await until(async () => (await waiting(postern.db)) === 1)
  const { socket, closed } = await openConnection(t, postern)
  const head = 'POST /token HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n'
  socket.write(`${head}content-length: 1000\r\n\r\ngrant_type=`)
  await fetch(`${postern.issuer}/health/live`) // what was written before has arrived
  const { code, seconds } = await ending(postern, () => {
    postern.server.process.kill('SIGTERM')
    closed.then(release)
  })
  t.equal((await answer).status, 200)
  t.equal(code, 0)
  t.ok(seconds < 15, `it took ${seconds} s`)
})

t.test('half a request costs the one before it on its connection nothing', async (t) => {
  const postern = await startPosternProcess(t)
  const { client_id, client_secret } = await postern.addResource('https://mcp.example.com/mcp')
  const release = await hold(postern, 'access_token')
  const { socket } = await openConnection(t, postern)
  const head = 'host: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n'
  socket.write(
    `POST /introspect HTTP/1.1\r\n${head}authorization: ${basic(client_id, client_secret)}\r\ncontent-length: 7\r\n\r\ntoken=x` +
      `POST /token HTTP/1.1\r\n${head}content-length: 1000\r\n\r\ngrant_type=`,
  )
  const answer = once(socket, 'data')
  await until(async () => (await waiting(postern.db)) === 1)
  const half = await openConnection(t, postern)
  half.socket.write(`POST /token HTTP/1.1\r\n${head}content-length: 1000\r\n\r\ngrant_type=`)
  await fetch(`${postern.issuer}/health/live`) // what was written before has arrived
  const { code } = await ending(postern, () => {
    postern.server.process.kill('SIGTERM')
    half.closed.then(release)
  })
  t.match(String((await answer)[0]), /^HTTP\/1\.1 200 /)
  t.equal(code, 0)
})

t.test('a second signal ends the process at once', async (t) => {
  const postern = await startPosternProcess(t)
  const introspect = await startIntrospection(postern)
  const release = await hold(postern, 'access_token')
  t.teardown(release)
  const answer = introspect().catch(() => undefined)
  await until(async () => (await waiting(postern.db)) === 1)
  const { code } = await ending(postern, () => {
    postern.server.process.kill('SIGTERM')
    until(() => refusesConnections(postern)).then(() => postern.server.process.kill('SIGTERM'))
  })
  t.equal(code, 1)
  await answer
})
