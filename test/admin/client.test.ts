import t from 'tap'
import {
  clientAdd,
  clientList,
  clientRemove,
  clientRotateSecret,
  clientSetDisabled,
  clientShow,
} from '../../src/admin/client.ts'
import { resourceAdd } from '../../src/admin/resource.ts'
import { registerClient } from '../../src/clients/register.ts'
import { readConfig } from '../../src/config.ts'
import { findClient } from '../../src/store/client.ts'
import { findResource } from '../../src/store/resource.ts'
import { hashSecret } from '../../src/tokens/secret.ts'
import { addGrant, jsonOf, refusalOf, startCommand, textOf } from './command.ts'

t.jobs = 4

const CALLBACK = 'https://app.example.com/callback'
const UNKNOWN = '0c5a4f6e-9d1f-4f0e-8f5c-3a1d0f4f2b7e'

t.test('adding a client answers with client information (RFC 7591 §3.2.1)', { buffered: true }, async (t) => {
  const { ask, db } = await startCommand(t)
  const uris = ['--redirect-uri', CALLBACK, '--redirect-uri', 'http://localhost/callback']
  const answer = await ask(['client', 'add', '--name', 'My app', ...uris])
  const { client_id, client_id_issued_at, client_secret, ...rest } = answer
  t.same(rest, {
    client_secret_expires_at: 0,
    client_name: 'My app',
    redirect_uris: [CALLBACK, 'http://localhost/callback'],
    token_endpoint_auth_method: 'client_secret_basic',
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
  })
  t.type(client_id_issued_at, 'number')
  const stored = await findClient(db, client_id)
  t.same(stored?.secret_hash, hashSecret(client_secret))
  t.match(stored, { registration: 'operator', unused_since: null, bound_scope: null, resource_ids: null })
})

t.test('a client is bound by the grants, scopes and resource servers that are named', { buffered: true }, async (t) => {
  const { ask, config, db } = await startCommand(t)
  const [a, b] = ['https://a.example.com', 'https://b.example.com']
  const ids: string[] = []
  for (const uri of [a, b]) ids.push((await jsonOf(resourceAdd(config, uri, { scope: ['read'] }))).client_id)
  const answer = await ask([
    ...['client', 'add', '--name', 'App', '--redirect-uri', CALLBACK, '--grant', 'authorization_code'],
    ...['--auth-method', 'none', '--resource', `${b}/`, '--resource', ids[0] ?? ''],
    ...['--scope', 'read  write', '--scope', 'list'],
  ])
  t.match(answer, {
    grant_types: ['authorization_code'],
    token_endpoint_auth_method: 'none',
    scope: 'read write list',
  })
  t.notHas(answer, 'client_secret')
  const stored = await findClient(db, answer.client_id)
  t.match(stored, { bound_scope: ['read', 'write', 'list'], resource_ids: [ids[1], ids[0]], secret_hash: null })
  const shown = await jsonOf(clientShow(config, answer.client_id))
  t.match(shown, { scopes: ['read', 'write', 'list'], resources: [a, b] })
  const options = { name: 'Other', redirectUri: [CALLBACK], resource: [a], scope: ['read write', 'list'] }
  const text = await textOf(clientAdd(config, options))
  t.match(text, /scopes +read write list\n/)
  t.match(text, 'no resource server that it may use has the scope write, list')

  // without a resource in the request: the default, if the client may use it, else the first that was named
  const bound = stored?.resource_ids ?? []
  t.equal((await findResource(db, undefined, bound))?.uri, a)
  await resourceAdd(config, 'https://c.example.com', { default: true })
  t.equal((await findResource(db, undefined, bound))?.uri, b)
  t.equal(await findResource(db, ['https://c.example.com'], bound), undefined)
})

t.test('what a client could not use is refused with the reason', { buffered: true }, async (t) => {
  const { fail, config } = await startCommand(t)
  t.match(await fail(['client', 'add', '--name', 'App']), /needs --redirect-uri/)
  const refused = (options: object) =>
    refusalOf(clientAdd(config, { name: 'App', redirectUri: [CALLBACK], ...options }))
  t.match(await refused({ redirectUri: ['http://app.example.com/'] }), /uses http on a host that is not loopback\.$/)
  t.match(await refused({ redirectUri: ['app:/callback'] }), /allowed are .*cursor \(POSTERN_REDIRECT_SCHEMES\)/)
  t.match(await refused({ scope: ['a"b'] }), /can't be a scope/)
  t.match(
    await refused({ scope: ['read openid'] }),
    'The scope openid belongs to OpenID Connect and means nothing here.',
  )
  t.match(await refused({ resource: ['https://x.example.com'] }), /no resource server/)
  t.match(await refused({ grant: ['refresh_token'] }), /can't be added/)
  t.match(await refused({ grant: ['authorization_code', 'password'] }), /The grant password can't be given/)
  t.match(await refused({ name: ' \x1b' }), /--name is empty/)
  t.same(await jsonOf(clientList(config)), [])
})

t.test('a name that a stranger chose cannot steer the terminal', { buffered: true }, async (t) => {
  const { succeed, ask, db } = await startCommand(t)
  const name = 'Good\x1b]0;owned\x07 \x9b31mApp\n\u202egnp'
  const metadata = {
    name,
    redirectUris: ['https://app.example.com/\x1b[2J'],
    tokenEndpointAuthMethod: 'none' as const,
    grantTypes: ['authorization_code'],
    defaultScope: undefined,
    dpopBoundAccessTokens: false,
    description: { software_version: '1\x1b[2J' },
  }
  const { client_id } = await registerClient({ config: readConfig({}), db }, metadata, {
    registration: 'open',
    network: '192.0.2.1',
  })
  const steering = /(?!\n)\p{Control}|\p{Bidi_Control}/u
  for (const args of [
    ['client', 'list'],
    ['client', 'show', client_id],
  ]) {
    const text = await succeed(args)
    t.match(text, 'Good]0;owned 31mAppgnp')
    t.notMatch(text, steering)
    t.notMatch(await succeed([...args, '--json']), steering)
  }
  t.equal((await ask(['client', 'show', client_id])).client_name, name)
  t.match(await succeed(['client', 'show', client_id]), /registered by +itself\n +registered from +192\.0\.2\.1/)
})

t.test('a client can be shown, disabled, enabled and given another secret', { buffered: true }, async (t) => {
  const { succeed, ask, fail, config, db } = await startCommand(t)
  const { client_id } = await jsonOf(clientAdd(config, { name: 'App', redirectUri: [CALLBACK] }))
  const rotated = await ask(['client', 'rotate-secret', client_id])
  t.match(rotated, { client_id, client_secret: /^postern_cs_/, client_secret_expires_at: 0 })
  t.same((await findClient(db, client_id))?.secret_hash, hashSecret(rotated.client_secret))
  t.match(await succeed(['client', 'disable', client_id]), /^Disabled App/)
  t.match(await textOf(clientShow(config, client_id)), /\n +disabled +\d{4}-/)
  t.match(await ask(['client', 'list']), [{ client_id, client_name: 'App', disabled: true, registration: 'operator' }])
  t.match(await ask(['client', 'enable', client_id]), { client_id, disabled: false })
  const open = await jsonOf(clientAdd(config, { name: 'Open', redirectUri: [CALLBACK], authMethod: 'none' }))
  t.match(await refusalOf(clientRotateSecret(config, open.client_id)), 'Open is a public client and has no secret.')
  t.match(await fail(['client', 'show', UNKNOWN]), `There is no client ${UNKNOWN}`)
  for (const id of [UNKNOWN, `x'; --`]) {
    t.match(await refusalOf(clientSetDisabled(config, id, true)), `There is no client ${id}`)
    t.match(await refusalOf(clientRotateSecret(config, id)), `There is no client ${id}`)
    t.match(await refusalOf(clientRemove(config, id)), `There is no client ${id}`)
  }
})

t.test('removing a client says how many grants ended with it', { buffered: true }, async (t) => {
  const { succeed, config, db } = await startCommand(t)
  await succeed(['user', 'add', 'alice'], 'correct horse')
  await resourceAdd(config, 'https://mcp.example.com/mcp', {})
  const { client_id } = await jsonOf(clientAdd(config, { name: 'App', redirectUri: [CALLBACK] }))
  await addGrant(db, 'alice', client_id)
  t.match(await textOf(clientList(config)), new RegExp(`\\n${client_id} +App +an operator +1 +\\d{4}-`))
  t.equal(await succeed(['client', 'remove', client_id]), 'Removed App; 1 grant ended.\n')
  t.same(await jsonOf(clientList(config)), [])
})
