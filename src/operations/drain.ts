import type { Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/**
 * Lets a server stop as soon as what is under way has been answered. Node.js would wait for connections that a
 * browser or a load balancer opened in advance, for half a header, and for those that are kept alive after the
 * last answer.
 *
 * @returns to be called when the server begins to stop
 */
export function watchConnections(server: Server): () => void {
  const sockets = new Set<Socket>()
  const underWay = new Map<ServerResponse, Socket>()
  let stopping = false
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  server.prependListener('request', ({ socket }, response) => {
    underWay.set(response, socket)
    response.once('close', () => {
      underWay.delete(response)
      if (stopping) socket.end()
    })
  })
  return () => {
    stopping = true
    for (const response of underWay.keys()) if (!response.headersSent) response.setHeader('connection', 'close')
    const needed = new Set(underWay.values())
    for (const socket of sockets) if (!needed.has(socket)) socket.destroy()
  }
}
