import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join, normalize } from 'node:path'
import type { Test } from 'tap'

const MODULES = join(import.meta.dirname, '..', '..', '..', 'node_modules')

/** Where the official client and what it imports lie, in the form that browsers use. */
const IMPORTS = {
  '@modelcontextprotocol/client': '@modelcontextprotocol/client/dist/index.mjs',
  '@modelcontextprotocol/client/_shims': '@modelcontextprotocol/client/dist/shimsBrowser.mjs',
  '@modelcontextprotocol/core/internal': '@modelcontextprotocol/core/dist/internal.mjs',
  eventsource: 'eventsource/dist/index.js',
  'eventsource-parser': 'eventsource-parser/dist/index.js',
  'eventsource-parser/stream': 'eventsource-parser/dist/stream.js',
  'pkce-challenge': 'pkce-challenge/dist/index.browser.js',
  'zod/v4': 'zod/v4/index.js',
}

const CALLBACK_PATH = '/oauth/callback'

/**
 * A web page that is an MCP client, as MCP Inspector is: the official SDK, unmodified, in the browser itself. What
 * it keeps is in the browser's session storage. `window.app` is what a test drives it with.
 */
const PAGE = `<!doctype html>
<title>Inspector</title>
<script type="importmap">${JSON.stringify({
  imports: Object.fromEntries(Object.entries(IMPORTS).map(([name, file]) => [name, `/node_modules/${file}`])),
})}</script>
<script type="module">
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client'

const kept = (name) => JSON.parse(sessionStorage.getItem(name) ?? 'null') ?? undefined
const keep = (name, value) => sessionStorage.setItem(name, JSON.stringify(value))
const redirectUrl = location.origin + '${CALLBACK_PATH}'
const provider = {
  redirectUrl,
  clientMetadata: {
    client_name: 'MCP Inspector',
    client_uri: 'https://github.com/modelcontextprotocol/inspector',
    redirect_uris: [redirectUrl],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
    scope: '',
  },
  clientInformation: () => kept('client'),
  saveClientInformation: (client) => keep('client', client),
  tokens: () => kept('tokens'),
  saveTokens: (tokens) => keep('tokens', tokens),
  codeVerifier: () => kept('verifier'),
  saveCodeVerifier: (verifier) => keep('verifier', verifier),
  discoveryState: () => kept('discovery'),
  saveDiscoveryState: (state) => keep('discovery', state),
  redirectToAuthorization: (url) => keep('authorize', url.href),
}
let client
window.app = {
  tokens: provider.tokens,
  /** the address to which the person must go; undefined when the connection stands */
  async connect(url) {
    client = new Client({ name: 'inspector', version: '1.0.0' })
    const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider })
    try {
      if (location.pathname === '${CALLBACK_PATH}' && kept('tokens') === undefined) {
        await transport.finishAuth(new URL(location.href).searchParams)
      }
      await client.connect(transport)
    } catch (error) {
      if (!(error instanceof UnauthorizedError)) throw error
      return kept('authorize')
    }
  },
  async call(name, parameters = {}) {
    const { content } = await client.callTool({ name, arguments: parameters })
    return content.map(({ text }) => text)
  },
}
</script>`

/** Serves the page. @returns its origin */
export async function serveBrowserClient(t: Test): Promise<string> {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost')
    if (!pathname.startsWith('/node_modules/')) {
      response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(PAGE)
      return
    }
    const file = join(MODULES, normalize(pathname).slice('/node_modules/'.length))
    const type = ['.js', '.mjs'].includes(extname(file)) ? 'text/javascript' : 'application/octet-stream'
    createReadStream(file)
      .on('open', () => response.writeHead(200, { 'content-type': type }))
      .on('error', () => response.writeHead(404).end())
      .pipe(response)
  })
  server.listen(0, 'localhost')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://localhost:${(server.address() as AddressInfo).port}`
}
