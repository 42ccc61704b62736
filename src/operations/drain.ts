import type { IncomingMessage, Server, ServerResponse } from 'node:http'
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
  const underWay = new Map<ServerResponse, IncomingMessage>()
  let stopping = false
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  server.prependListener('request', (request, response) => {
    underWay.set(response, request)
    response.once('close', () => {
      underWay.delete(response)
      if (stopping) request.socket.end()
    })
  })
  const cutAllBut = (needed: IncomingMessage[]) => {
    const kept = new Set(needed.map(({ socket }) => socket))
    for (const socket of sockets) if (!kept.has(socket)) socket.destroy()
  }
  return () => {
    stopping = true
    for (const response of underWay.keys()) if (!response.headersSent) response.setHeader('connection', 'close')
    cutAllBut([...underWay.values()])
    const cutIncomplete = () => cutAllBut([...underWay.values()].filter(({ complete }) => complete))
    setTimeout(cutIncomplete, REST_SECONDS * 1000).unref()
  }
}
