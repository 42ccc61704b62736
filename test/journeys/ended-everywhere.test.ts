import t from 'tap'
import { basic } from '../support/credentials.ts'
import { authorizeUrl, pkce, post } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { PASSWORD } from '../support/postern.ts'
import { startPosternProcess } from '../support/postern-process.ts'

const CALLBACK = 'https://app.example/callback'
const RESOURCE = 'https://mcp.example.com/mcp'

t.test('what ends on one process has ended on the other at the next request', async (t) => {
  const postern = await startPosternProcess(t)
  const resource = await postern.addResource(RESOURCE)
  const other = { issuer: await postern.startReplica() }
  const added = await postern.command(['client', 'add', '--name', 'Example', '--redirect-uri', CALLBACK, '--json'])
  const client = JSON.parse(added)

  /** Somebody who is signed in, with a token. */
  const connect = async (username: string) => {
    const person = new Person()
    const { verifier, challenge } = pkce()
    const answer = await person.authorize(authorizeUrl(postern, client, challenge), { username })
    const { body } = await post(postern, '/token', {
      grant_type: 'authorization_code',
      code: answer.searchParams.get('code') ?? '',
      code_verifier: verifier,
      client_id: client.client_id,
      client_secret: client.client_secret,
    })
    return { person, token: String(body.access_token) }
  }
  const isActive = async (token: string) => {
    const authorization = basic(resource.client_id, resource.client_secret)
    return (await post(other, '/introspect', { token }, { authorization })).body.active
  }
  const isSignedIn = async (person: Person) => (await person.request(`${other.issuer}/account`)).status === 200

  const alice = await connect('alice')
  t.equal(await isActive(alice.token), true)
  t.ok(await isSignedIn(alice.person))
  const [grant] = JSON.parse(await postern.command(['grant', 'list', '--user', 'alice', '--json']))
  await postern.command(['grant', 'revoke', grant.id])
  t.equal(await isActive(alice.token), false, 'a grant')

  const elsewhere = new Person()
  await elsewhere.signIn(postern.issuer)
  const account = { address: `${postern.issuer}/account`, html: '' }
  account.html = await (await elsewhere.request(account.address)).text()
  await elsewhere.submit(account, '/account/sessions/end', { session: 'others' })
  t.notOk(await isSignedIn(alice.person), 'a session')
  t.ok(await isSignedIn(elsewhere))

  for (const [username, ending] of [
    ['berta', 'disable'],
    ['carla', 'remove'],
  ] as const) {
    await postern.command(['user', 'add', username], `${PASSWORD}\n`)
    const { person, token } = await connect(username)
    t.equal(await isActive(token), true)
    await postern.command(['user', ending, username])
    t.equal(await isActive(token), false, `a user: ${ending}`)
    t.notOk(await isSignedIn(person), `a user: ${ending}`)
  }
})
