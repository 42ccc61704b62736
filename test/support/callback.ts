import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import { TEST_CERTIFICATE, TEST_KEY } from './certificate.ts'

/** A client's own server, to which the browser comes back. */
export interface Callback {
  redirectUri: string
  /** Every address at which a browser arrived, in order. */
  arrivals: URL[]
  /** The next address at which a browser arrives, or has arrived since the last call. */
  next(): Promise<URL>
}

/** Listens on a free port for the browser's way back to the client. */
export async function listenForCallback(
  t: Test,
  { path = '/callback', tls = false }: { path?: string; tls?: boolean } = {},
): Promise<Callback> {
  const arrivals: URL[] = []
  let taken = 0
  let wake = () => {}
  const listener: RequestListener = (request, response) => {
    const url = new URL(request.url ?? '', redirectUri)
    response
      .writeHead(200, { 'content-type': 'text/html; charset=utf-8' })
      .end('<!doctype html><title>Back</title>Back.')
    if (url.pathname !== path) return // the application's own page, or a browser's request for an icon
    arrivals.push(url)
    wake()
  }
  const server = tls ? createTlsServer({ key: TEST_KEY, cert: TEST_CERTIFICATE }, listener) : createServer(listener)
  server.listen(0, 'localhost')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const redirectUri = `${tls ? 'https' : 'http'}://localhost:${(server.address() as AddressInfo).port}${path}`
  return {
    redirectUri,
    arrivals,
    next: async () => {
      const deadline = AbortSignal.timeout(20_000)
      while (arrivals.length <= taken) {
        await new Promise<void>((resolve, reject) => {
          wake = resolve
          deadline.onabort = () => reject(new Error(`no browser came to ${redirectUri}`))
        })
      }
      taken += 1
      return arrivals[taken - 1] as URL
    },
  }
}
