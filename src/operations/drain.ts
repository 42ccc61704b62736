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
  // the table changes with connections alone: one whose entries come and go with requests outlives them, and keeps them
  const underWay = new Map<Socket, ServerResponse | undefined>()
  let stopping = false
  function onClose(this: ServerResponse): void {
    const { socket } = this.req
    if (underWay.get(socket) !== this) return // the next request of the connection is here already
    underWay.set(socket, undefined)
    if (stopping) socket.end()
  }
  server.on('connection', (socket) => {
    underWay.set(socket, undefined)
    socket.once('close', () => underWay.delete(socket))
  })
  server.prependListener('request', ({ socket }, response) => {
    underWay.set(socket, response)
    response.on('close', onClose)
  })
  const cutUnless = (isNeeded: (response: ServerResponse) => boolean) => {
    for (const [socket, response] of underWay) {
      if (response === undefined || !isNeeded(response)) socket.destroy()
    }
  }
  return () => {
    stopping = true
    for (const response of underWay.values()) {
      if (response?.headersSent === false) response.setHeader('connection', 'close')
    }
    cutUnless(() => true)
    setTimeout(() => cutUnless(({ req }) => req.complete), REST_SECONDS * 1000).unref()
  }
}
