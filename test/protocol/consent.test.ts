import t from 'tap'
import { canBeToldApart, judgeConsent } from '../../src/protocol/consent.ts'

const NO_PROMPT = new Set<string>()
const web = { confidential: false, redirectUri: 'https://app.example/callback' }
const loopback = { confidential: false, redirectUri: 'http://localhost:8787/callback' }
const application = { confidential: false, redirectUri: 'cursor://anysphere.cursor-mcp/callback' }

t.test('without an earlier consent the person is asked for everything', async (t) => {
  t.same(judgeConsent(web, ['read', 'write'], undefined, NO_PROMPT), { newScope: ['read', 'write'], grantedScope: [] })
})

t.test('an earlier consent that covers the request is enough for a client on https', async (t) => {
  t.equal(judgeConsent(web, ['read'], ['read', 'write'], NO_PROMPT), undefined)
})

t.test('a step-up asks for the new scopes, and shows the others', async (t) => {
  t.same(judgeConsent(web, ['read', 'write'], ['read', 'admin'], NO_PROMPT), {
    newScope: ['write'],
    grantedScope: ['read'],
  })
})

t.test('a public client on loopback or a private-use scheme is asked about each time (RFC 8252 §8.6)', async (t) => {
  for (const client of [loopback, application]) {
    t.notOk(canBeToldApart(client))
    t.same(judgeConsent(client, ['read'], ['read'], NO_PROMPT), { newScope: ['read'], grantedScope: [] })
  }
})

t.test('a client with a secret can be told from others, wherever it is answered', async (t) => {
  for (const client of [web, { ...loopback, confidential: true }, { ...application, confidential: true }]) {
    t.ok(canBeToldApart(client))
    t.equal(judgeConsent(client, ['read'], ['read'], NO_PROMPT), undefined)
  }
})

t.test('prompt=consent asks the whole question once more (OpenID Connect Core §3.1.2.1)', async (t) => {
  t.same(judgeConsent(web, ['read'], ['read'], new Set(['consent'])), { newScope: ['read'], grantedScope: [] })
  t.equal(judgeConsent(web, ['read'], ['read'], new Set(['login'])), undefined)
})

t.test('a resource without scopes is consented to all the same', async (t) => {
  t.same(judgeConsent(web, [], undefined, NO_PROMPT), { newScope: [], grantedScope: [] })
  t.equal(judgeConsent(web, [], [], NO_PROMPT), undefined)
})
