import { createRemoteJWKSet, jwtVerify } from 'jose'
import { sql } from 'kysely'
import t from 'tap'
import { obtainMachineToken } from '../support/access-token.ts'
import { startProgram } from '../support/child-process.ts'
import { withDatabase } from '../support/database.ts'
import { introspect } from '../support/flow.ts'
import { freePort } from '../support/postern.ts'
import { type PosternProcess, startPosternProcess } from '../support/postern-process.ts'
import { until } from '../support/until.ts'
import { CLI } from './command.ts'

const MCP = 'https://notes.example/mcp'
const KEY = '/cUxP3tJ0e7uYd5mWq2rLb8nZs6vGh1kTf4oAi9jXyE='

interface ListedKey {
  kid: string
  algorithm: string
  state: string
  private_key: string
}

t.test(
  'an operator adds a resource server with JWTs, and rotates keys by command, while the server runs',
  async (t) => {
    const postern = await startPosternProcess(t)
    const text = await postern.command(['resource', 'add', 'https://other.example/mcp', '--token-format', 'jwt'])
    for (const word of ['RFC 9068', `${postern.issuer}/jwks`, 'at+jwt', 'https://other.example/mcp', 'revoked']) {
      t.match(text, word)
    }
    const { resource, machine } = await addJwtResource(postern)
    const token = await obtainMachineToken(postern, machine, MCP)
    const keySet = createRemoteJWKSet(new URL(`${postern.issuer}/jwks`))
    await jwtVerify(token, keySet, { issuer: postern.issuer, audience: MCP, typ: 'at+jwt' })
    const isActive = async () => (await introspect({ ...postern, resourceServer: resource } as never, token)).active

    const [first] = await list(postern)
    t.match(first, { algorithm: 'ES256', state: 'signing', private_key: 'plain' })
    t.match(await postern.command(['key', 'list']), first?.kid as string)

    const rotated = JSON.parse(await postern.command(['key', 'rotate', '--algorithm', 'EdDSA', '--json']))
    t.match(rotated, { kid: /^[\w-]{43}$/, algorithm: 'EdDSA', withdrawn: [] })
    t.match(await list(postern), [
      { kid: first?.kid, state: 'signing' },
      { kid: rotated.kid, state: 'next', algorithm: 'EdDSA' },
    ])
    await until(async () => (await publishedKids(postern)).includes(rotated.kid))
    t.equal(await isActive(), true)

    t.match(await postern.command(['key', 'rotate', '--now']), '2 keys withdrawn')
    const [now, ...others] = await list(postern)
    t.match(now, { algorithm: 'ES256', state: 'signing' })
    t.same(others, [])
    await until(async () => !(await isActive()), 10)
    t.same(await publishedKids(postern), [now?.kid])
    await jwtVerify(
      await obtainMachineToken(postern, machine, MCP),
      createRemoteJWKSet(new URL(`${postern.issuer}/jwks`)),
    )

    await t.rejects(postern.command(['key', 'rotate', '--algorithm', 'HS256']), /ended with 2/)
    await t.rejects(postern.command(['resource', 'add', 'https://x.example', '--token-format', 'x']), /ended with 2/)
  },
)

t.test('the encryption key that the keys were sealed with is needed to start', async (t) => {
  const postern = await startPosternProcess(t, { POSTERN_ENCRYPTION_KEY: KEY })
  t.match(await list(postern), [{ private_key: 'sealed' }])
  t.notMatch(postern.server.lines.join('\n'), KEY)
  await postern.server.stop()
  const start = async (key: string) => {
    const env = { DATABASE_URL: await urlOf(postern), PORT: String(await freePort()), POSTERN_ENCRYPTION_KEY: key }
    return startProgram(t, CLI, { args: ['serve'], env, ready: (line) => line.includes('"event":"started"') })
  }
  await t.rejects(start(`x${KEY}`), /POSTERN_ENCRYPTION_KEY does not open the stored signing keys/)
  await t.rejects(start(''), /POSTERN_ENCRYPTION_KEY is not set/)
  await t.rejects(start('short'), /POSTERN_ENCRYPTION_KEY must have at least 32 characters/)
})

async function addJwtResource(postern: PosternProcess) {
  const resource = JSON.parse(await postern.command(['resource', 'add', MCP, '--token-format', 'jwt', '--json']))
  const machine = JSON.parse(
    await postern.command(['client', 'add', '--name', 'Machine', '--grant', 'client_credentials', '--json']),
  )
  return { resource: { id: resource.client_id, secret: resource.client_secret }, machine }
}

async function list(postern: PosternProcess): Promise<ListedKey[]> {
  return JSON.parse(await postern.command(['key', 'list', '--json']))
}

async function publishedKids({ issuer }: PosternProcess): Promise<string[]> {
  const { keys } = (await (await fetch(`${issuer}/jwks`)).json()) as { keys: { kid: string }[] }
  return keys.map(({ kid }) => kid)
}

/** The address of the database that a server uses. */
async function urlOf({ db }: PosternProcess): Promise<string> {
  const { rows } = await sql<{ name: string }>`select current_database() as name`.execute(db)
  return withDatabase(process.env.TEST_DATABASE_URL ?? '', rows[0]?.name ?? '')
}
