import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  type ClientOptions,
  clientAdd,
  clientList,
  clientRotateSecret,
  clientSetDisabled,
  clientShow,
} from '../../src/admin/client.ts'
import type { Answer } from '../../src/admin/output.ts'
import { assertionBy, type ClientKey, makeKey } from '../support/assertion.ts'
import { obtainTokens, post, refresh } from '../support/flow.ts'
import { RESOURCE, startTestPostern, type TestPostern } from '../support/postern.ts'
import { startPosternProcess } from '../support/postern-process.ts'
import { openAuthorization } from '../support/websites.ts'

/** A website on this machine, with the documents that it has. */
async function serve(t: Test, documents: Record<string, object>): Promise<string> {
  const server = createServer((request, response) => {
    const document = documents[request.url ?? '']
    if (document === undefined) response.writeHead(404).end()
    else response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(document))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Writes files into a folder that goes when the test ends. */
async function openFolder(t: Test): Promise<(name: string, content: unknown) => Promise<string>> {
  const folder = await mkdtemp(join(tmpdir(), 'postern-keys-'))
  t.teardown(() => rm(folder, { recursive: true }))
  return async (name, content) => {
    await writeFile(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content))
    return join(folder, name)
  }
}

const textOf = async (answer: Promise<Answer>) => (await answer).text.join('\n')

async function statusOfMachine(postern: TestPostern, clientId: string, key: ClientKey): Promise<number> {
  const assertion = await assertionBy(postern, clientId, key)
  const { status } = await post(postern, '/token', { grant_type: 'client_credentials', ...assertion })
  return status
}

t.test('an operator adds clients with keys, in a file or at an address', async (t) => {
  const postern = await startTestPostern(t, { metadataDocumentLoopback: true })
  const { config } = postern.context
  const file = await openFolder(t)
  const key = await makeKey('EdDSA', 'one')
  const website = await serve(t, { '/jwks.json': { keys: [key.publicJwk] } })
  const options = { name: 'Nightly', grant: ['client_credentials'], authMethod: 'private_key_jwt' }
  const add = async (keys: Partial<ClientOptions>) => (await clientAdd(config, { ...options, ...keys })).json
  const jwks = await file('jwks.json', { keys: [key.publicJwk] })

  const inFile = (await add({ jwks })) as { client_id: string }
  t.match(inFile, { token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: [key.publicJwk] } })
  t.notOk('client_secret' in inFile)
  t.equal(await statusOfMachine(postern, inFile.client_id, key), 200)
  t.match(await textOf(clientShow(config, inFile.client_id)), 'one')
  await t.rejects(clientRotateSecret(config, inFile.client_id), /has keys, and no secret/)

  const atAddress = (await add({ jwksUri: `${website}/jwks.json` })) as { client_id: string }
  t.match(atAddress, { jwks_uri: `${website}/jwks.json` })
  t.equal(await statusOfMachine(postern, atAddress.client_id, key), 200)
  t.match(await textOf(clientShow(config, atAddress.client_id)), `${website}/jwks.json`)

  const wrong: [Partial<ClientOptions>, RegExp][] = [
    [{}, /needs --jwks FILE or --jwks-uri URL/],
    [{ jwks, jwksUri: website }, /needs --jwks FILE or --jwks-uri URL/],
    [{ jwks: `${jwks}.missing` }, /can't be read/],
    [{ jwks: await file('text.json', 'no JSON') }, /is not a key set/],
    [{ jwks: await file('private.json', { keys: [{ ...key.publicJwk, d: 'AAAA' }] }) }, /is not a key set/],
    [{ jwks: await file('two.json', { keys: [key.publicJwk, { kty: 'oct', k: 'AAAA' }] }) }, /is not a key set/],
    [{ jwksUri: 'ftp://keys.example/' }, /jwks_uri is not an https URL/],
    [{ authMethod: 'client_secret_basic', jwks }, /Keys are for --auth-method private_key_jwt/],
  ]
  for (const [keys, problem] of wrong) await t.rejects(add(keys), problem, JSON.stringify(keys))
})

t.test('in development a document may come from this machine, and the operator sees its client', async (t) => {
  const postern = await startTestPostern(t, { metadataDocumentLoopback: true })
  const { config } = postern.context
  const documents: Record<string, object> = {}
  const website = await serve(t, documents)
  const client = {
    client_id: `${website}/client.json`,
    client_name: 'In the making',
    redirect_uris: ['http://localhost/callback'],
  }
  documents['/client.json'] = client
  const tokens = await obtainTokens(postern, client)
  t.match(await textOf(clientList(config)), 'its metadata document')
  const shown = (await clientShow(config, client.client_id)).json
  t.match(shown, { client_name: 'In the making', registration: 'document', grants: 1 })
  await clientSetDisabled(config, client.client_id, true)
  t.equal((await refresh(postern, client, tokens.refresh_token)).status, 401)
})

t.test('without that setting nothing on this machine is fetched', async (t) => {
  const postern = await startTestPostern(t)
  const website = await serve(t, {})
  for (const origin of [
    website,
    website.replace('http:', 'https:'),
    website.replace('http://127.0.0.1', 'https://localhost'),
  ]) {
    const client = { client_id: `${origin}/client.json`, redirect_uris: ['https://app.example/callback'] }
    t.equal((await openAuthorization(postern, client)).status, 400, origin)
  }
})

t.test('the command and the server take the same options and settings', async (t) => {
  const file = await openFolder(t)
  const key = await makeKey()
  const postern = await startPosternProcess(t, { POSTERN_METADATA_DOCUMENT_LOOPBACK: 'on' })
  const { resource } = await postern.addResource(RESOURCE)
  const jwks = await file('jwks.json', { keys: [key.publicJwk] })
  const add = [
    'client',
    'add',
    '--name',
    'Nightly',
    '--grant',
    'client_credentials',
    '--auth-method',
    'private_key_jwt',
  ]
  const { client_id } = JSON.parse(await postern.command([...add, '--jwks', jwks, '--json']))
  const assertion = await assertionBy(postern, client_id, key)
  const answer = await post(postern, '/token', { grant_type: 'client_credentials', resource, ...assertion })
  t.equal(answer.status, 200)
})
