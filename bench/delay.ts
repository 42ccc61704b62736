/**
 * A TCP proxy in front of Postgres that holds back what is sent there, so that every round trip takes longer by that:
 * `node delay.js PORT SOCKET MILLISECONDS`.
 */
import { connect, createServer } from 'node:net'

const [port, path = '', milliseconds] = process.argv.slice(2)

createServer((client) => {
  const database = connect({ path })
  client.setNoDelay(true)
  client.on('data', (chunk) => setTimeout(() => database.write(chunk), Number(milliseconds)))
  database.pipe(client)
  client.on('close', () => database.destroy()).on('error', () => database.destroy())
  database.on('close', () => client.destroy()).on('error', () => client.destroy())
}).listen(Number(port), '127.0.0.1', () => process.send?.('listening'))
