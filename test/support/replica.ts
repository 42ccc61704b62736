import type { Test } from 'tap'
import type { Config } from '../../src/config.ts'
import type { Context } from '../../src/context.ts'
import { createSigningKeys } from '../../src/keys/signing-keys.ts'
import { createServer } from '../../src/server.ts'
import { freePort, type TestPostern } from './postern.ts'

/**
 * Starts another server on the same database, with the same issuer. `issuer` of what it returns is the address
 * of this server alone, so that requests can be sent to it.
 */
export async function startReplica(
  t: Test,
  postern: TestPostern,
  overrides: Partial<Config> = {},
): Promise<TestPostern> {
  const config = { ...postern.context.config, ...overrides }
  const { db, log } = postern.context
  const context: Context = { ...postern.context, config, keys: createSigningKeys({ config, db, log }) }
  await context.keys.tend()
  const server = await createServer(context)
  const port = await freePort()
  await server.listen({ host: '127.0.0.1', port })
  t.teardown(() => server.close())
  return { ...postern, issuer: `http://localhost:${port}`, context, server }
}
