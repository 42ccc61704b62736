import t from 'tap'
import { clientAdd } from '../../src/admin/client.ts'
import { grantList, grantRevoke } from '../../src/admin/grant.ts'
import { resourceAdd } from '../../src/admin/resource.ts'
import { addGrant, jsonOf, refusalOf, startCommand, textOf } from './command.ts'

t.test('grants are listed for all, for a user, for a client, and revoked one by one', async (t) => {
  const { succeed, ask, fail, config, db } = await startCommand(t)
  t.match(await textOf(grantList(config, {})), 'There is no such grant')
  for (const name of ['alice', 'bob']) await succeed(['user', 'add', name], 'correct horse')
  await resourceAdd(config, 'https://mcp.example.com/mcp', { scope: ['read', 'write'] })
  const redirectUri = ['https://app.example.com/callback']
  const app = await jsonOf(clientAdd(config, { name: 'App', redirectUri }))
  const tool = await jsonOf(clientAdd(config, { name: 'Tool', redirectUri }))
  const grants = {
    aliceApp: await addGrant(db, 'alice', app.client_id),
    aliceTool: await addGrant(db, 'alice', tool.client_id),
    bobApp: await addGrant(db, 'bob', app.client_id),
  }
  const ids = async (options: { user?: string; client?: string }) =>
    (await jsonOf(grantList(config, options))).map(({ id }: { id: string }) => id)
  t.same(await ids({}), [grants.bobApp, grants.aliceTool, grants.aliceApp])
  t.same(await ids({ user: 'Alice' }), [grants.aliceTool, grants.aliceApp])
  t.same(await ids({ client: app.client_id }), [grants.bobApp, grants.aliceApp])
  t.same(await ids({ user: 'alice', client: app.client_id }), [grants.aliceApp])
  const [grant, ...others] = await ask(['grant', 'list', '--user', 'bob', '--client', app.client_id])
  t.same(others, [])
  t.match(grant, {
    id: grants.bobApp,
    user: 'bob',
    client_id: app.client_id,
    client_name: 'App',
    resource: 'https://mcp.example.com/mcp',
    scopes: ['read', 'write'],
    created_at: /Z$/,
    last_used_at: /Z$/,
    expires_at: /Z$/,
  })
  const row = new RegExp(`\\n${grants.bobApp} +bob +App +https:\\S+ +read write +\\d`)
  t.match(await succeed(['grant', 'list', '--user', 'bob']), row)

  t.match(await succeed(['grant', 'revoke', grants.aliceApp]), `Revoked ${grants.aliceApp}`)
  t.same(await ids({}), [grants.bobApp, grants.aliceTool])
  t.match(await jsonOf(grantRevoke(config, grants.bobApp.toUpperCase())), { revoked: true })
  t.match(await fail(['grant', 'revoke', 'x']), 'There is no grant x')
  for (const id of [grants.aliceApp, app.client_id, `' or true --`]) {
    t.match(await refusalOf(grantRevoke(config, id)), `There is no grant ${id}`)
  }
  t.match(await fail(['grant', 'list', '--user', 'nobody']), 'There is no user nobody')
  t.match(await refusalOf(grantList(config, { client: 'nothing' })), 'There is no client nothing')
  t.same(await ids({}), [grants.aliceTool])
})
