import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import { createServer } from '../../src/server.ts'
import { openDatabase } from '../../src/store/database.ts'
import type { TestPostern } from './postern.ts'

/** One more Postern on the same database, behind the same issuer. @returns where it listens */
export async function startReplica(t: Test, { context, databaseUrl }: TestPostern): Promise<string> {
  const db = openDatabase({ connectionString: databaseUrl }, { poolSize: 10, onError: () => {} })
  const server = await createServer({ ...context, db })
  await server.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(async () => {
    await server.close()
    await db.destroy()
  })
  return `http://127.0.0.1:${(server.server.address() as AddressInfo).port}${context.config.basePath}`
}
