import t from 'tap'
import { clientAdd, clientShow } from '../../src/admin/client.ts'
import { resourceAdd, resourceList, resourceRemove, resourceRotateSecret } from '../../src/admin/resource.ts'
import { findClient } from '../../src/store/client.ts'
import { findResource } from '../../src/store/resource.ts'
import { hashSecret } from '../../src/tokens/secret.ts'
import { addGrant, jsonOf, refusalOf, startCommand, textOf } from './command.ts'

t.jobs = 4

const MCP = 'https://mcp.example.com/mcp'

t.test('adding a resource server answers with its credentials and its document', { buffered: true }, async (t) => {
  const { ask, db } = await startCommand(t)
  const words = ['--name', 'Example', '--scope', 'read=Read your data', '--scope', 'write', '--scope', 'a:b=x = y']
  const { client_id, client_secret, ...rest } = await ask(['resource', 'add', MCP, ...words])
  t.same(rest, {
    resource: MCP,
    scopes: ['read', 'write', 'a:b'],
    protected_resource_metadata: {
      resource: MCP,
      authorization_servers: ['https://auth.example.com'],
      scopes_supported: ['read', 'write', 'a:b'],
      bearer_methods_supported: ['header'],
      resource_name: 'Example',
    },
  })
  const stored = await findResource(db, [MCP])
  t.equal(stored?.id, client_id)
  t.same(stored?.secret_hash, hashSecret(client_secret))
  t.same(stored?.scopes, [
    { name: 'read', description: 'Read your data' },
    { name: 'write', description: 'write' },
    { name: 'a:b', description: 'x = y' },
  ])
})

t.test('a person is told what to set in the resource server, and where its document goes', async (t) => {
  const { succeed, db } = await startCommand(t)
  const text = await succeed(['resource', 'add', MCP, '--scope', 'read=Read your data'])
  const secret = /client_secret +(\S+)/.exec(text)?.[1] ?? ''
  t.same((await findResource(db, [MCP]))?.secret_hash, hashSecret(secret))
  t.equal(text.split(secret).length, 2, 'the secret is shown once')
  t.match(text, 'https://auth.example.com/introspect')
  const document = 'https://mcp.example.com/.well-known/oauth-protected-resource/mcp'
  t.match(text, document)
  t.match(text, `WWW-Authenticate: Bearer resource_metadata="${document}"`)
  t.match(text, `postern doctor ${MCP}`)
  t.notMatch(text, 'you typed')
})

t.test('an address is brought into its one form, and that is told', { buffered: true }, async (t) => {
  const { fail, config } = await startCommand(t)
  t.match(await textOf(resourceAdd(config, 'HTTPS://MCP.example.com:443/mcp', {})), `Added ${MCP} (written`)
  const known = await fail(['resource', 'add', MCP])
  t.match(known, `postern resource rotate-secret ${MCP}`)
  t.match(known, `postern resource remove ${MCP}`)
  t.match(await textOf(resourceAdd(config, `${MCP}/`, {})), `Mind that ${MCP} has been added too`)
  t.match(await jsonOf(resourceAdd(config, 'http://10.1.2.3:80/', {})), { resource: 'http://10.1.2.3' })
})

t.test('what cannot be a resource server or a scope is refused with the reason', { buffered: true }, async (t) => {
  const { fail, config } = await startCommand(t)
  t.match(await fail(['resource', 'add', 'mcp.example.com']), /can't be a resource server/)
  for (const uri of ['ftp://mcp.example.com', `${MCP}#fragment`, 'https://user@mcp.example.com', '']) {
    t.match(await refusalOf(resourceAdd(config, uri, {})), /can't be a resource server/)
  }
  const refused = (...scope: string[]) => refusalOf(resourceAdd(config, MCP, { scope }))
  t.match(await refused('two words=x'), /"two words" can't be a scope/)
  t.match(await refused('=x'), /can't be a scope/)
  t.match(await refused('offline_access'), /means nothing here/)
  t.match(await refused('a=1', 'a=2'), /twice/)
  t.same(await jsonOf(resourceList(config)), [])
})

t.test('the first resource server is the default, until --default or its removal', { buffered: true }, async (t) => {
  const { succeed, config } = await startCommand(t)
  t.match(await textOf(resourceList(config)), 'There is no resource server yet')
  const defaults = async () =>
    (await jsonOf(resourceList(config))).filter((resource: { default: boolean }) => resource.default)
  for (const host of ['a', 'b']) await resourceAdd(config, `https://${host}.example.com`, {})
  t.match(await defaults(), [{ resource: 'https://a.example.com' }])
  t.match(await succeed(['resource', 'add', 'https://c.example.com', '--default']), 'It is the default')
  t.match(await defaults(), [{ resource: 'https://c.example.com' }])
  t.equal(
    await succeed(['resource', 'remove', 'https://c.example.com']),
    'Removed https://c.example.com; 0 grants ended.\n',
  )
  t.match(await defaults(), [{ resource: 'https://a.example.com', protected_resource_metadata: { resource: String } }])
  const list = await succeed(['resource', 'list'])
  t.match(list, /^RESOURCE +NAME +SCOPES +DEFAULT +UPSTREAM +CLIENT ID +CREATED \(UTC\)\nhttps:\/\/a/)
})

t.test('a secret is rotated by any form of the address, or by the client_id', { buffered: true }, async (t) => {
  const { ask, fail, config, db } = await startCommand(t)
  const added = await jsonOf(resourceAdd(config, MCP, {}))
  t.match(await ask(['resource', 'rotate-secret', MCP]), { resource: MCP, client_id: added.client_id })
  for (const reference of ['https://MCP.EXAMPLE.COM/mcp', `${MCP}/`, added.client_id]) {
    const { client_secret } = await jsonOf(resourceRotateSecret(config, reference))
    t.same((await findResource(db, [MCP]))?.secret_hash, hashSecret(client_secret), reference)
  }
  t.match(await fail(['resource', 'remove', 'https://other.example.com']), /There is no resource server https:/)
  for (const reference of ['x', added.client_id.replace(/^./, 'z'), added.client_id.replace(/^.{8}/, '00000000')]) {
    t.match(await refusalOf(resourceRotateSecret(config, reference)), `There is no resource server ${reference}`)
  }
})

t.test('removing a resource server ends its grants, and never unbinds a client', { buffered: true }, async (t) => {
  const { succeed, config, db } = await startCommand(t)
  await succeed(['user', 'add', 'alice'], 'correct horse')
  const other = 'https://other.example.com'
  for (const uri of [MCP, other]) await resourceAdd(config, uri, {})
  const redirectUri = ['https://app.example.com/callback']
  const both = await jsonOf(clientAdd(config, { name: 'Both', redirectUri, resource: [MCP, other] }))
  const one = await jsonOf(clientAdd(config, { name: 'One', redirectUri, resource: [MCP] }))
  await addGrant(db, 'alice', both.client_id)
  t.same(await jsonOf(resourceRemove(config, MCP)), { resource: MCP, ended_grants: 1 })
  t.same((await jsonOf(clientShow(config, both.client_id))).resources, [other])
  t.same((await jsonOf(clientShow(config, one.client_id))).resources, [])
  t.match(await textOf(clientShow(config, one.client_id)), /resources +none/)
  const bound = (await findClient(db, one.client_id))?.resource_ids ?? undefined
  t.equal(await findResource(db, [other], bound), undefined)
  t.equal(await findResource(db, undefined, bound), undefined)
})
