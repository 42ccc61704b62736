import type { Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** The requests of a connection that have no whole answer yet: several, if its client doesn't wait for answers. */
interface UnderWay {
  count: number
  newest: ServerResponse | undefined
}

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
  const connections = new Map<Socket, UnderWay>()
  let stopping = false
  let isRestDue = false
  function onClose(this: ServerResponse): void {
    const { socket } = this.req
    const underWay = connections.get(socket)
    if (underWay === undefined) return
    underWay.count -= 1
    if (underWay.newest === this) underWay.newest = undefined
    if (stopping && underWay.count === 0) socket.end()
    else if (isRestDue) cutUnlessNeeded(socket, underWay)
  }
  server.on('connection', (socket) => {
    connections.set(socket, { count: 0, newest: undefined })
    socket.once('close', () => connections.delete(socket))
  })
  server.prependListener('request', ({ socket }, response) => {
    const underWay = connections.get(socket)
    if (underWay === undefined) return
    underWay.count += 1
    underWay.newest = response
    response.on('close', onClose)
  })
  /** Only the newest request of a connection can be incomplete; those before it have to be answered. */
  const cutUnlessNeeded = (socket: Socket, { count, newest }: UnderWay) => {
    if (count === 0 || (count === 1 && isRestDue && newest?.req.complete === false)) socket.destroy()
  }
  const cut = () => {
    for (const [socket, underWay] of connections) cutUnlessNeeded(socket, underWay)
  }
  return () => {
    stopping = true
    for (const { newest } of connections.values()) {
      if (newest?.headersSent === false) newest.setHeader('connection', 'close')
    }
    cut()
    setTimeout(() => {
      isRestDue = true
      cut()
    }, REST_SECONDS * 1000).unref()
  }
}
