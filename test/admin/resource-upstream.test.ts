import t from 'tap'
import { resourceAdd, resourceList, resourceSet } from '../../src/admin/resource.ts'
import { insertIdentityProvider } from '../../src/store/identity-provider.ts'
import { identityProvider } from '../support/identity-provider.ts'
import { jsonOf, refusalOf, startCommand, textOf } from './command.ts'

const MCP = 'https://mcp.example.com/mcp'

t.test('an operator says at which providers a resource server may act, and takes it back', async (t) => {
  const { ask, config, db } = await startCommand(t)
  await insertIdentityProvider(db, identityProvider({ keeps_tokens: true }))
  await insertIdentityProvider(db, identityProvider({ id: 'forgetful' }))
  await resourceAdd(config, MCP, {})
  t.match(await ask(['resource', 'set', MCP, '--allow-upstream', 'company:offline']), {
    upstream: [{ provider: 'company', offline: true }],
  })
  t.match(await textOf(resourceList(config)), /UPSTREAM +CLIENT ID[\s\S]*company:offline/)
  const allowedAt = async () =>
    (await db.selectFrom('resource_upstream').select('allowed_at').executeTakeFirst())?.allowed_at.getTime() ?? 0
  const first = await allowedAt()

  const set = (options: Parameters<typeof resourceSet>[2]) => resourceSet(config, MCP, options)
  t.match(await jsonOf(set({ allowUpstream: ['company'] })), { upstream: [{ provider: 'company', offline: false }] })
  t.equal(await allowedAt(), first, 'that is less, to which people have agreed')
  t.match(await jsonOf(resourceList(config)), [{ upstream: [{ provider: 'company', offline: false }] }])
  await set({ allowUpstream: ['company:offline'] })
  t.ok((await allowedAt()) > first, 'and that is more')

  t.match(await refusalOf(set({ allowUpstream: ['nobody'] })), 'postern provider list')
  t.match(await refusalOf(set({ allowUpstream: ['forgetful'] })), 'postern provider set forgetful --keep-tokens')
  t.match(await refusalOf(set({ allowUpstream: ['company:always'] })), 'PROVIDER:offline')
  const twice = { allowUpstream: ['company'], disallowUpstream: ['company'] }
  t.match(await refusalOf(set(twice)), 'The identity provider company is there twice.')
  t.match(await jsonOf(set({ disallowUpstream: ['company'] })), { upstream: [] })
})
