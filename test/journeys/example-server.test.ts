/** examples/mcp-server as a resource server: what it says to clients, and how it bears with a Postern that is away. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import t, { type Test } from 'tap'
import { startExampleServerFromEnvironment } from '../support/example-server.ts'
import { authorizeUrl, obtainTokens, pkce, redeem } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { addClient, addResource, addUser, freePort, startTestPostern } from '../support/postern.ts'

const SCOPES = [
  { name: 'read', description: 'Read your notes' },
  { name: 'write', description: 'Add notes' },
]

/** The example server, and Postern behind a gate that a test can close. */
async function startNotes(t: Test) {
  const gate = await startGate(t)
  const postern = await startTestPostern(t, { issuer: gate.address, port: gate.upstreamPort })
  const url = `http://localhost:${await freePort()}/mcp`
  const { id, secret } = await addResource(postern, url, SCOPES)
  const facts = { RESOURCE: url, ISSUER: postern.issuer, CLIENT_ID: id, CLIENT_SECRET: secret }
  await startExampleServerFromEnvironment(t, facts)
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  const tokenFor = async (scope: string) => (await obtainTokens(postern, client, { resource: url, scope })).access_token
  return { gate, postern, url, client, tokenFor }
}

const CALL_LIST = { jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'notes_list', arguments: {} } }
const CALL_ADD = {
  jsonrpc: '2.0',
  id: 1,
  method: 'tools/call',
  params: { name: 'notes_add', arguments: { text: 'a' } },
}

function ask(url: string, message: object, token?: string): Promise<Response> {
  return fetch(url, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify(message),
  })
}

t.test('the example MCP server', async (t) => {
  const { gate, postern, url, client, tokenFor } = await startNotes(t)
  const { origin } = new URL(url)
  const metadataUrl = `${origin}/.well-known/oauth-protected-resource/mcp`

  t.test('serves its metadata where RFC 9728 §3.1 puts it', async (t) => {
    const response = await fetch(metadataUrl)
    t.equal(response.headers.get('access-control-allow-origin'), '*')
    t.match(await response.json(), { resource: url, authorization_servers: [postern.issuer] })
    t.equal((await fetch(`${origin}/elsewhere`)).status, 404)
  })

  t.test('answers 401 without a token, and says where tokens come from (RFC 9728 §5.1)', async (t) => {
    const expected = `Bearer scope="read write", resource_metadata="${metadataUrl}"`
    t.equal((await ask(url, CALL_LIST)).headers.get('www-authenticate'), expected)
    for (const method of ['HEAD', 'GET', 'DELETE', 'POST']) {
      const response = await fetch(url, { method })
      t.equal(response.status, 401, method)
      t.equal(response.headers.get('www-authenticate'), expected)
    }
  })

  t.test('answers 401 invalid_token to a token that does not hold, or is for another resource', async (t) => {
    const elsewhere = (await obtainTokens(postern, client)).access_token // for RESOURCE
    for (const token of ['nonsense', elsewhere]) {
      const response = await ask(url, CALL_LIST, token)
      t.equal(response.status, 401)
      t.match(response.headers.get('www-authenticate'), /^Bearer error="invalid_token", /)
    }
  })

  t.test('answers 403 insufficient_scope, naming what the client has and what it needs', async (t) => {
    const token = await tokenFor('read')
    t.equal((await ask(url, CALL_LIST, token)).status, 200)
    for (const message of [CALL_ADD, [CALL_LIST, CALL_ADD]]) {
      const response = await ask(url, message, token)
      t.equal(response.status, 403)
      t.equal(
        response.headers.get('www-authenticate'),
        `Bearer error="insufficient_scope", scope="read write", resource_metadata="${metadataUrl}"`,
      )
    }
    t.match((await ask(url, CALL_LIST, await tokenFor('write'))).headers.get('www-authenticate'), /scope="write read"/)
  })

  t.test('answers a preflight without a token (Fetch §4.8)', async (t) => {
    const response = await fetch(url, { method: 'OPTIONS', headers: { origin: 'http://localhost:6274' } })
    t.equal(response.status, 204)
    t.match(response.headers.get('access-control-allow-headers'), /authorization/)
  })

  t.test('asks once more when Postern was unavailable for a moment', async (t) => {
    const token = await tokenFor('read write')
    gate.refuseNext(1)
    t.equal((await ask(url, CALL_LIST, token)).status, 200)
    gate.cutNext(1)
    t.equal((await ask(url, CALL_LIST, token)).status, 200)
  })

  t.test('answers 503, never 401, when Postern stays away: the token may be good', async (t) => {
    const token = await tokenFor('read write')
    for (const failing of [gate.refuseNext, gate.cutNext]) {
      failing(2)
      const response = await ask(url, CALL_LIST, token)
      t.equal(response.status, 503)
      t.equal(response.headers.get('www-authenticate'), null)
      t.match(response.headers.get('retry-after'), /^\d+$/)
    }
    t.equal((await ask(url, CALL_LIST, token)).status, 200)
  })

  t.test('keeps the notes of each person apart', async (t) => {
    await addUser(postern, 'bob')
    const { verifier, challenge } = pkce()
    const answer = await new Person().authorize(authorizeUrl(postern, client, challenge, { resource: url }), {
      username: 'bob',
    })
    const bob = await redeem(postern, client, { code: String(answer.searchParams.get('code')), verifier })
    t.equal((await ask(url, CALL_ADD, await tokenFor('read write'))).status, 200)
    t.strictSame(await listed(await ask(url, CALL_LIST, await tokenFor('read'))), ['a'])
    t.strictSame(await listed(await ask(url, CALL_LIST, String(bob.body.access_token))), [])
  })
})

async function listed(response: Response): Promise<string[]> {
  const { result } = (await response.json()) as { result: { content: { text: string }[] } }
  return result.content.map(({ text }) => text)
}

/** A server between the example and Postern that passes requests on, or doesn't. */
async function startGate(t: Test) {
  const upstreamPort = await freePort()
  const port = await freePort()
  let refusals = 0
  let cuts = 0
  const pass = async (request: IncomingMessage, response: ServerResponse) => {
    if (request.url === '/introspect' && cuts > 0) {
      cuts -= 1
      request.socket.destroy()
      return
    }
    if (request.url === '/introspect' && refusals > 0) {
      refusals -= 1
      response.writeHead(503, { 'retry-after': '0', 'content-type': 'application/json' }).end('{}')
      return
    }
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const answer = await fetch(`http://localhost:${upstreamPort}${request.url}`, {
      method: request.method ?? 'GET',
      headers: Object.entries(request.headers)
        .filter(([name]) => !['host', 'connection', 'content-length', 'transfer-encoding'].includes(name))
        .map(([name, value]): [string, string] => [name, String(value)]),
      redirect: 'manual',
      ...(chunks.length > 0 ? { body: Buffer.concat(chunks) } : {}),
    })
    response.writeHead(answer.status, [...answer.headers].flat()).end(Buffer.from(await answer.arrayBuffer()))
  }
  const server = createServer((request, response) => void pass(request, response))
  await new Promise<void>((resolve) => server.listen(port, 'localhost', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return {
    address: `http://localhost:${port}`,
    upstreamPort,
    refuseNext: (times: number) => {
      refusals = times
    },
    cutNext: (times: number) => {
      cuts = times
    },
  }
}
