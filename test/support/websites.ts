import { once } from 'node:events'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import type { Network } from '../../src/clients/fetch-json.ts'
import type { Config } from '../../src/config.ts'
import { TEST_CERTIFICATE, TEST_KEY } from './certificate.ts'
import { authorizeUrl, type FlowClient, pkce } from './flow.ts'
import { APP } from './metadata-documents.ts'
import { Person, textOf } from './person.ts'
import { startTestPostern, type TestPostern } from './postern.ts'

/** Where the websites seem to be. */
export const PUBLIC_ADDRESS = '93.184.216.34'

/** What answers at an address: a JSON document, or anything else. */
export type Page = object | RequestListener

/**
 * The internet as a test sees it: names that resolve as the test says, and one real HTTPS server that is all the
 * websites. What Postern does is real, up to the address that it has found good: the connection to it ends here.
 */
export interface Websites {
  /** by URL; others answer 404 */
  pages: Map<string, Page>
  /** addresses of names; of others PUBLIC_ADDRESS. Steer an answer by setting it, or the look-up by replacing it. */
  addresses: Map<string, string[]>
  /** every URL that was asked for, in order */
  fetched: string[]
  /** every name that was looked up, in order */
  resolved: string[]
  /** the addresses that were connected to, in order */
  connected: string[][]
  network: Network
}

/** Opens the websites; nothing is there yet. */
export async function openWebsites(t: Test): Promise<Websites> {
  const server = createServer({ key: TEST_KEY, cert: TEST_CERTIFICATE }, (request, response) => {
    const url = `https://${request.headers.host}${request.url}`
    websites.fetched.push(url)
    answer(websites.pages.get(url), request, response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const websites: Websites = {
    pages: new Map(),
    addresses: new Map(),
    fetched: [],
    resolved: [],
    connected: [],
    network: {
      resolve: async (name) => {
        websites.resolved.push(name)
        return websites.addresses.get(name) ?? [PUBLIC_ADDRESS]
      },
      route: (addresses) => {
        websites.connected.push(addresses)
        return { addresses: ['127.0.0.1'], port: (server.address() as AddressInfo).port }
      },
      certificateAuthority: TEST_CERTIFICATE,
    },
  }
  return websites
}

function answer(page: Page | undefined, request: IncomingMessage, response: ServerResponse): void {
  if (typeof page === 'function') page(request, response)
  else if (page === undefined) response.writeHead(404).end()
  else response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(page))
}

/** Starts Postern before websites that have the document of APP. */
export async function startWithWebsites(
  t: Test,
  overrides: Partial<Config> = {},
): Promise<{ postern: TestPostern; websites: Websites }> {
  const websites = await openWebsites(t)
  websites.pages.set(APP.client_id, APP)
  return { postern: await startTestPostern(t, overrides, { network: websites.network }), websites }
}

/** What an authorization request is answered with, for a person who was never here. */
export async function openAuthorization(
  postern: TestPostern,
  client: FlowClient,
  parameters: Record<string, string | undefined> = {},
): Promise<{ status: number; text: string; location: string }> {
  const response = await new Person().request(authorizeUrl(postern, client, pkce().challenge, parameters))
  const location = response.headers.get('location') ?? ''
  return { status: response.status, text: textOf(await response.text()), location }
}
