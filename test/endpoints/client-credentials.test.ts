import t from 'tap'
import { introspect, post } from '../support/flow.ts'
import { addClient, addResource, RESOURCE, startTestPostern } from '../support/postern.ts'

const service = {
  redirectUris: [],
  grantTypes: ['client_credentials'],
  tokenEndpointAuthMethod: 'client_secret_post',
} as const

t.test('a client that an operator added gets a token for itself, and no refresh token (RFC 6749 §4.4)', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, {
    ...service,
    grantTypes: [...service.grantTypes],
    redirectUris: [],
    boundScope: ['read'],
  })
  const { client_id, client_secret } = client
  const fields = { grant_type: 'client_credentials', client_id, client_secret, resource: RESOURCE }
  const { status, body } = await post(postern, '/token', { ...fields, scope: 'read write' })
  t.equal(status, 200)
  t.match(body, { token_type: 'Bearer', expires_in: 3600, scope: 'read' }, 'no more than the operator gave it')
  t.notOk(body.refresh_token)
  const answer = await introspect(postern, body.access_token as string)
  t.match(answer, { active: true, sub: client_id, client_id, scope: 'read' })
  t.notOk('username' in answer)
  t.match((await post(postern, '/token', { ...fields, scope: 'write' })).body, { error: 'invalid_scope' })
  t.match((await post(postern, '/token', { ...fields, resource: 'https://other.example/' })).body, {
    error: 'invalid_target',
  })
  await post(postern, '/revoke', { client_id, client_secret, token: body.access_token as string })
  t.equal((await introspect(postern, body.access_token as string)).active, false, 'and can revoke it (RFC 7009)')
})

t.test('a token of a client is for one resource only, and ends with the client', async (t) => {
  const postern = await startTestPostern(t)
  const other = await addResource(postern, 'https://other.example/api')
  const client = await addClient(postern, { ...service, grantTypes: [...service.grantTypes], redirectUris: [] })
  const { client_id, client_secret } = client
  const { body } = await post(postern, '/token', { grant_type: 'client_credentials', client_id, client_secret })
  t.same(await introspect(postern, body.access_token as string, other), { active: false })
  await postern.db.updateTable('client').set({ disabled_at: new Date() }).where('id', '=', client_id).execute()
  t.same(await introspect(postern, body.access_token as string), { active: false })
})

t.test('a client that registered itself never gets one: nobody has approved it', async (t) => {
  const postern = await startTestPostern(t)
  const response = await fetch(`${postern.issuer}/register`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ grant_types: ['client_credentials'], redirect_uris: ['https://app.example/cb'] }),
  })
  t.match(await response.json(), { error: 'invalid_client_metadata' })
  const both = await fetch(`${postern.issuer}/register`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      grant_types: ['authorization_code', 'client_credentials'],
      redirect_uris: ['https://app.example/cb'],
    }),
  })
  const client = (await both.json()) as { client_id: string; client_secret: string; grant_types: string[] }
  t.same(client.grant_types, ['authorization_code'])
  const { client_id, client_secret } = client
  const refused = await post(postern, '/token', { grant_type: 'client_credentials', client_id, client_secret })
  t.match(refused, { status: 400, body: { error: 'unauthorized_client' } })
})
