// A small MCP server whose access tokens come from Postern. It keeps notes: one tool reads them, one adds one.
//
//   node server.js resource.json      resource.json is what `postern resource add … --json` printed
//   node server.js                    with RESOURCE, ISSUER, CLIENT_ID and CLIENT_SECRET in the environment
//
// What an MCP server has to do about authorization is in three places: the metadata document that tells clients
// where tokens come from, `authorize`, which judges each request, and `challenge`, which tells clients what to do.

import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { setTimeout as wait } from 'node:timers/promises'
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import { z } from 'zod'

const { argv, env } = process
if (argv[2] === undefined && !(env.RESOURCE && env.ISSUER && env.CLIENT_ID && env.CLIENT_SECRET)) {
  process.stderr.write('Usage: node server.js resource.json, or set RESOURCE, ISSUER, CLIENT_ID and CLIENT_SECRET\n')
  process.exit(2)
}
const added = argv[2] === undefined ? {} : JSON.parse(readFileSync(argv[2], 'utf8'))

/** Protected resource metadata (RFC 9728 §2): what a client reads first. */
const metadata = added.protected_resource_metadata ?? {
  resource: env.RESOURCE,
  authorization_servers: [env.ISSUER],
  scopes_supported: ['read', 'write'],
  bearer_methods_supported: ['header'],
}

const resource = new URL(metadata.resource)
const [issuer] = metadata.authorization_servers
const clientId = added.client_id ?? env.CLIENT_ID
const clientSecret = added.client_secret ?? env.CLIENT_SECRET

/** Its well-known part goes before the path of the resource (RFC 9728 §3.1). */
const metadataPath = `/.well-known/oauth-protected-resource${resource.pathname === '/' ? '' : resource.pathname}`
const metadataUrl = resource.origin + metadataPath

/**
 * What a client without a token is told to ask for. Both scopes at once is what works with most clients. The least
 * that is useful is what the MCP specification prefers (FIRST_SCOPE=read): `notes_add` is then answered with 403,
 * and a client that knows how to asks the person for more.
 */
const FIRST_SCOPE = env.FIRST_SCOPE ?? 'read write'

const SCOPE_OF_TOOL = new Map([
  ['notes_list', 'read'],
  ['notes_add', 'write'],
])

const LARGEST_BODY = 1024 * 1024 // bytes
const INTROSPECTION_TIMEOUT = 5000 // milliseconds

/** Notes of each person, by the token's `sub`; gone when the process ends. */
const notes = new Map()

const server = createServer((request, response) => {
  answer(request, response).catch((error) => {
    process.stderr.write(`${error.stack}\n`)
    if (!response.headersSent) send(response, 500, { error: 'server_error' })
  })
})

async function answer(request, response) {
  // Clients that are web pages, such as MCP Inspector, call from another origin. Without cookies, so `*` is safe.
  response.setHeader('access-control-allow-origin', '*')
  response.setHeader('access-control-expose-headers', 'www-authenticate, mcp-session-id, retry-after')
  if (request.method === 'OPTIONS') return answerPreflight(response)

  const { pathname } = new URL(request.url, resource)
  if (pathname === metadataPath) return send(response, 200, metadata)
  if (pathname !== resource.pathname) return send(response, 404, { error: 'not_found' })

  const access = await authorize(request, response)
  if (access === undefined) return // it has been answered
  if (request.method !== 'POST') return send(response, 405, { error: 'method_not_allowed' }, { allow: 'POST' })
  const message = await readJson(request)
  if (message === undefined) return send(response, 400, { error: 'invalid_request' })

  const granted = access.scope.split(' ').filter((scope) => scope !== '')
  const missing = scopesFor(message).filter((scope) => !granted.includes(scope))
  if (missing.length > 0) {
    // The scopes that the token has are named too: many clients ask for exactly what they read here,
    // and would lose the others.
    const scope = [...granted, ...missing].join(' ')
    return challenge(response, 403, { error: 'insufficient_scope', scope })
  }

  // Nothing is kept between requests: each has its own MCP server, which knows whose notes it may touch.
  const mcp = notesServer(access.sub)
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true })
  response.on('close', () => mcp.close())
  await mcp.connect(transport)
  await transport.handleRequest(request, response, message)
}

/**
 * Judges the request's token, each time anew: a token that was revoked a moment ago is refused.
 *
 * @returns what Postern says about the token; `undefined` when the request has been answered with an error
 */
async function authorize(request, response) {
  const token = /^Bearer +([^\s]+) *$/i.exec(request.headers.authorization ?? '')?.[1]
  if (token === undefined) return challenge(response, 401, { scope: FIRST_SCOPE })
  let access
  try {
    access = await introspect(token)
  } catch (error) {
    // Not 401: that would make the client throw away a token that is perhaps good.
    process.stderr.write(`introspection failed: ${error.message}\n`)
    return send(response, 503, { error: 'temporarily_unavailable' }, { 'retry-after': '2' })
  }
  // `aud`: a token that was issued for another server must not work here (RFC 8707 §2). Postern tells each resource
  // server about its own tokens alone; this line stays right if that is ever not so.
  // The slash of a root makes no difference: Gemini CLI wants it in the metadata, Postern leaves it away.
  if (access.active && new URL(access.aud).href === resource.href) return access
  return challenge(response, 401, { error: 'invalid_token', scope: FIRST_SCOPE })
}

/** Asks Postern about a token (RFC 7662). Once more if it can't answer, or if the connection broke. */
async function introspect(token) {
  for (let attempt = 1; ; attempt += 1) {
    const last = attempt === 2
    try {
      const response = await fetch(`${issuer}/introspect`, {
        method: 'POST',
        headers: { authorization: `Basic ${Buffer.from(`${clientId}:${clientSecret}`).toString('base64')}` },
        body: new URLSearchParams({ token }),
        signal: AbortSignal.timeout(INTROSPECTION_TIMEOUT),
      })
      if (response.status === 200) return await response.json()
      const text = await response.text()
      if (response.status !== 503 || last) throw new Error(`${issuer} answered ${response.status}: ${text}`)
      await wait(Math.min(Number(response.headers.get('retry-after')) || 0, 2) * 1000)
    } catch (error) {
      if (last || !(error instanceof TypeError)) throw error // fetch throws a TypeError for a broken connection
    }
  }
}

/** The scopes that a message needs. Which tool is called stands in the body, so this comes after reading it. */
function scopesFor(message) {
  const calls = [message].flat().filter((one) => one?.method === 'tools/call')
  return [...new Set(calls.map((call) => SCOPE_OF_TOOL.get(call.params?.name)))].filter((scope) => scope !== undefined)
}

/** Tells a client what it lacks, and where tokens come from (RFC 6750 §3, RFC 9728 §5.1). */
function challenge(response, status, { error, scope }) {
  const parameters = [
    ...(error === undefined ? [] : [`error="${error}"`]),
    `scope="${scope}"`,
    `resource_metadata="${metadataUrl}"`,
  ]
  const body = { error: error ?? 'invalid_request', error_description: `an access token is needed: ${scope}` }
  send(response, status, body, { 'www-authenticate': `Bearer ${parameters.join(', ')}` })
}

/** The MCP side: tools, and nothing about tokens. */
function notesServer(person) {
  const mcp = new McpServer({ name: 'notes', version: '1.0.0' })
  mcp.registerTool(
    'notes_list',
    { title: 'List notes', description: 'Reads all your notes.', annotations: { readOnlyHint: true } },
    async () => ({ content: (notes.get(person) ?? []).map((text) => ({ type: 'text', text })) }),
  )
  mcp.registerTool(
    'notes_add',
    { title: 'Add a note', description: 'Adds a note.', inputSchema: { text: z.string().min(1).max(1000) } },
    async ({ text }) => {
      notes.set(person, [...(notes.get(person) ?? []), text])
      return { content: [{ type: 'text', text: 'Added.' }] }
    },
  )
  return mcp
}

async function readJson(request) {
  const chunks = []
  let size = 0
  for await (const chunk of request) {
    size += chunk.length
    if (size > LARGEST_BODY) return undefined
    chunks.push(chunk)
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'))
  } catch {
    return undefined
  }
}

function answerPreflight(response) {
  response.writeHead(204, {
    'access-control-allow-methods': 'GET, POST, DELETE, OPTIONS',
    'access-control-allow-headers': 'authorization, *', // the wildcard doesn't cover authorization (Fetch §4.9)
    'access-control-max-age': '86400',
  })
  response.end()
}

function send(response, status, body, headers = {}) {
  response.writeHead(status, { 'content-type': 'application/json', ...headers })
  response.end(JSON.stringify(body))
}

const port = env.PORT ?? (resource.port || '80')
server.listen(Number(port), env.HOST ?? 'localhost', () => {
  process.stdout.write(`MCP server ${metadata.resource} listens on port ${port}; tokens come from ${issuer}\n`)
})
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    server.close()
    server.closeIdleConnections()
  })
}
