import type { Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** How long a stopping server waits for the rest of a request: what isn't whole by then may never be. */
const REST_SECONDS = 2

/**
 * Lets a server stop as soon as what is under way has been answered. Node.js would wait for connections that a
 * browser or a load balancer opened in advance, for half a header or half a body, and for those that are kept alive
 * after the last answer.
 *
 * @returns to be called when the server begins to stop
 */
export function watchConnections(server: Server): () => void {
  const sockets = new Set<Socket>()
  const underWay = new Set<ServerResponse>()
  let stopping = false
  function onClose(this: ServerResponse): void {
    underWay.delete(this)
    if (stopping) this.req.socket.end()
  }
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  server.prependListener('request', (_request, response) => {
    underWay.add(response)
    response.on('close', onClose)
  })
  const cutAllBut = (needed: ServerResponse[]) => {
    const kept = new Set(needed.map(({ req }) => req.socket))
    for (const socket of sockets) if (!kept.has(socket)) socket.destroy()
  }
  return () => {
    stopping = true
    for (const response of underWay) if (!response.headersSent) response.setHeader('connection', 'close')
    cutAllBut([...underWay])
    const cutIncomplete = () => cutAllBut([...underWay].filter(({ req }) => req.complete))
    setTimeout(cutIncomplete, REST_SECONDS * 1000).unref()
  }
}
