import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'

/**
 * Starts a proxy in front of Postgres.
 *
 * @param url of the database, whose server may listen on a Unix socket
 * @param forward passes on what a client sent, or does something else with it
 * @returns the URL of the database behind the proxy
 */
export async function startDatabaseProxy(
  t: Test,
  url: string,
  forward: (chunk: Buffer, database: Socket, client: Socket) => unknown,
): Promise<string> {
  const target = new URL(url)
  const folder = target.searchParams.get('host')
  const port = Number(target.port || 5432)
  const proxy = createServer((client) => {
    const database = folder === null ? connect(port, target.hostname) : connect(join(folder, `.s.PGSQL.${port}`))
    client.on('data', (chunk) => forward(chunk, database, client))
    client.on('error', () => {}).on('close', () => database.destroy())
    database.on('error', () => {}).pipe(client)
  })
  proxy.listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  t.teardown(() => proxy.close())
  target.searchParams.delete('host')
  target.host = `127.0.0.1:${(proxy.address() as AddressInfo).port}`
  return target.href
}
