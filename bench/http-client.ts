import { connect, type Socket } from 'node:net'

export interface Answer {
  status: number
  /** value of the Location header */
  location: string | undefined
  body: string
}

/**
 * One kept-alive connection that carries one request at a time: HTTP/1.1 as far as these servers speak it, and little
 * enough work that the driver never is what limits a rate.
 */
export class Connection {
  readonly #socket: Socket
  readonly #host: string
  #received = ''
  #waiting: { resolve: (answer: Answer) => void; reject: (error: Error) => void } | undefined

  private constructor(socket: Socket, host: string) {
    this.#socket = socket
    this.#host = host
    socket.setNoDelay(true).setEncoding('latin1')
    socket.on('data', (text: string) => this.#read(text))
    socket.on('error', (error) => this.#fail(error))
    socket.on('close', () => this.#fail(new Error('the server closed the connection')))
  }

  static async open(port: number): Promise<Connection> {
    const socket = connect({ host: '127.0.0.1', port })
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    return new Connection(socket, `localhost:${port}`)
  }

  get(path: string, headers: string): Promise<Answer> {
    return this.#send(`GET ${path} HTTP/1.1\r\nhost: ${this.#host}\r\n${headers}\r\n`)
  }

  /** @param headers whole lines, each with its end */
  post(path: string, headers: string, body: string): Promise<Answer> {
    const length = `content-length: ${body.length}\r\n` // bodies are ASCII
    return this.#send(`POST ${path} HTTP/1.1\r\nhost: ${this.#host}\r\n${length}${headers}\r\n${body}`)
  }

  close(): void {
    this.#waiting = undefined
    this.#socket.destroy()
  }

  #send(text: string): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
      this.#socket.write(text, 'latin1')
    })
  }

  #read(text: string): void {
    this.#received += text
    const end = this.#received.indexOf('\r\n\r\n')
    if (end < 0) return
    const head = this.#received.slice(0, end)
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1]
    if (length === undefined) {
      this.#fail(new Error(`an answer without content-length: ${head}`))
      return
    }
    const bodyStart = end + 4
    if (this.#received.length < bodyStart + Number(length)) return
    const body = this.#received.slice(bodyStart, bodyStart + Number(length))
    this.#received = ''
    const waiting = this.#waiting
    this.#waiting = undefined
    const location = /\r\nlocation: *([^\r]*)/i.exec(head)?.[1]
    waiting?.resolve({ status: Number(head.slice(9, 12)), location, body })
  }

  #fail(error: Error): void {
    this.#waiting?.reject(error)
    this.#waiting = undefined
  }
}
