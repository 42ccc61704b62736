import t from 'tap'
import { introspect, isActive, obtainTokens, refresh } from '../support/flow.ts'
import { addClient, startTestPostern } from '../support/postern.ts'

t.test('a code is redeemed for tokens that introspection knows', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  const tokens = await obtainTokens(postern, client)
  t.match(tokens, { token_type: 'Bearer', expires_in: 3600, scope: 'read write' })
  const answer = await introspect(postern, tokens.access_token)
  t.match(answer, {
    active: true,
    iss: postern.issuer,
    aud: 'https://mcp.example.com/mcp',
    username: 'alice',
    scope: 'read write',
  })
  const refreshed = await refresh(postern, client, tokens.refresh_token)
  t.equal(refreshed.status, 200, JSON.stringify(refreshed.body))
  t.equal(await isActive(postern, tokens.access_token), false)
  t.equal(await isActive(postern, refreshed.body.access_token as string), true)
  const again = await refresh(postern, client, tokens.refresh_token)
  t.equal(again.status, 200)
  t.equal(again.body.access_token, refreshed.body.access_token)
  t.equal(again.body.refresh_token, refreshed.body.refresh_token)
})
