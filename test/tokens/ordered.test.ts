import { randomBytes } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import { newAccessToken } from '../../src/tokens/access-token.ts'
import { encodeCredential, hashSecret, orderedHash, orderedSecret } from '../../src/tokens/secret.ts'
import { forge, partsOf } from '../support/credentials.ts'
import { introspect, obtainTokens, refresh, type Tokens } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { addClient, startTestPostern } from '../support/postern.ts'

t.test('the keys of one minute stand beside each other, and after those of the minutes before', async (t) => {
  const clock = t.intercept(Date, 'now', { value: () => minute * 60_000 })
  let minute = 30_000_000
  const first = Array.from({ length: 100 }, () => newAccessToken().hash)
  minute += 1
  const second = Array.from({ length: 100 }, () => newAccessToken().hash)
  clock.restore()
  t.equal(new Set([...first, ...second].map(String)).size, 200)
  t.equal(new Set(first.map((hash) => hash.subarray(0, 3).toString('hex'))).size, 1)
  t.ok(
    second.every((one) => first.every((other) => Buffer.compare(one, other) > 0)),
    'an index gets them at its end',
  )
})

t.test(
  'of the hash a secret can bring no more than three bytes, or a dump of the database would be tokens',
  async (t) => {
    const stored = newAccessToken()
    for (const minuteBytes of [0, 1, 2, 4, 28, 32, 64]) {
      const content = Buffer.concat([stored.hash.subarray(0, minuteBytes), Buffer.alloc(32)])
      t.same(newAccessToken(content).hash, hashSecret(newAccessToken(content).text), `${minuteBytes} bytes before`)
    }
    const secret = orderedSecret()
    t.same(orderedHash(secret).subarray(3), hashSecret(secret).subarray(3), 'the rest is SHA-256')
  },
)

t.test('tokens from before secrets were ordered still count', async (t) => {
  const postern = await startTestPostern(t)
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  const { refresh_token } = await obtainTokens(postern, client, {}, new Person())
  const [lineage, text] = [randomBytes(32), encodeCredential('accessToken', randomBytes(32))]
  const earlier = forge(refresh_token, { lineage })
  await sql`update access_token set token_hash = ${hashSecret(text)}`.execute(postern.db)
  await sql`update token_family set lineage_hash = ${hashSecret(lineage)}, access_token_hash = ${hashSecret(text)}`.execute(
    postern.db,
  )
  t.match(await introspect(postern, text), { active: true })
  const answer = await refresh(postern, client, earlier)
  t.equal(answer.status, 200)
  const { access_token, refresh_token: next } = answer.body as unknown as Tokens
  t.same(partsOf(next).lineage, lineage)
  t.match(await introspect(postern, access_token), { active: true })
  t.same(await introspect(postern, text), { active: false }, 'it was superseded')
})
