/**
 * A proxy as stands in front of Postern in production: ends TLS, and tells who asked. It runs in a process of its
 * own; `startProxy` starts it.
 */
import { request as forward, type OutgoingHttpHeaders } from 'node:http'
import { createServer } from 'node:https'
import { TEST_CERTIFICATE, TEST_KEY } from './certificate.ts'

export interface ProxyOptions {
  port: number
  /** the port of Postern, which is below this path and its well-knowns */
  posternPort: number
  posternPath: string
  /** the port of everything else */
  otherPort: number
  /**
   * What becomes of X-Forwarded-… headers that a client made up: `replaced` by the proxy's own, or `appended` to,
   * as many proxies do (then only the last address is the proxy's word)
   */
  forwarded: 'replaced' | 'appended'
}

if (process.argv[2] !== undefined) run(JSON.parse(process.argv[2]))

function run({ port, posternPort, posternPath, otherPort, forwarded }: ProxyOptions): void {
  const server = createServer({ key: TEST_KEY, cert: TEST_CERTIFICATE }, (request, response) => {
    const path = request.url ?? '/'
    const toPostern =
      path.startsWith(`${posternPath}/`) ||
      path.split('?')[0] === posternPath ||
      /^\/\.well-known\/(oauth-authorization-server|openid-configuration)(\/|$)/.test(path)
    const address = request.socket.remoteAddress ?? ''
    const headers: OutgoingHttpHeaders = { ...request.headers }
    if (forwarded === 'replaced') {
      for (const name of Object.keys(headers))
        if (name.startsWith('x-forwarded-') || name === 'forwarded') delete headers[name]
      headers['x-forwarded-for'] = address
      headers['x-forwarded-host'] = request.headers.host
      headers['x-forwarded-proto'] = 'https'
    } else {
      headers['x-forwarded-for'] = [request.headers['x-forwarded-for'], address].filter(Boolean).join(', ')
    }
    const upstream = forward(
      { host: '127.0.0.1', port: toPostern ? posternPort : otherPort, method: request.method, path, headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.rawHeaders)
        answer.pipe(response)
      },
    )
    upstream.on('error', () => {
      if (response.headersSent) response.destroy()
      else response.writeHead(502, { 'content-type': 'text/plain' }).end('Bad gateway')
    })
    request.pipe(upstream)
  })
  server.listen(port, () => process.stdout.write(`proxy listens on ${port}\n`))
  process.on('SIGTERM', () => process.exit(0))
}
