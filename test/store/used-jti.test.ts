import t from 'tap'
import { removeEndedRows } from '../../src/store/ended-rows.ts'
import { claimJti } from '../../src/store/used-jti.ts'
import { createTestDatabase, letTimePass } from '../support/database.ts'

t.test('of any number of claims one wins, until it has ended', async (t) => {
  const { db } = await createTestDatabase(t)
  const key = Buffer.from('one')
  const claims = await Promise.all(Array.from({ length: 50 }, () => claimJti(db, key, 60)))
  t.equal(claims.filter(Boolean).length, 1)
  t.ok(await claimJti(db, Buffer.from('another'), 60))
  await letTimePass(db, 119) // a minute longer: a request may have been judged in time
  t.notOk(await claimJti(db, key, 60))
  await letTimePass(db, 2)
  const again = await Promise.all(Array.from({ length: 50 }, () => claimJti(db, key, 60)))
  t.equal(again.filter(Boolean).length, 1, 'an ended row counts as none, for one')
})

t.test('ended rows are removed', async (t) => {
  const { db } = await createTestDatabase(t)
  await claimJti(db, Buffer.from('one'), 60)
  await claimJti(db, Buffer.from('two'), 600)
  await letTimePass(db, 121)
  const result = await removeEndedRows(db, { unusedClientSeconds: 86_400 }, 1000)
  t.equal(result?.removed.used_jti, 1)
})
