import { randomBytes } from 'node:crypto'
import { sql } from 'kysely'
import t from 'tap'
import { encodeCredential, hashSecret } from '../../src/tokens/secret.ts'
import { forge, partsOf } from '../support/credentials.ts'
import { introspect, obtainTokens, refresh, type Tokens } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { addClient, startTestPostern } from '../support/postern.ts'

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
