import t from 'tap'
import { insertIdentityProvider, setIdentityProviderDisabled } from '../../src/store/identity-provider.ts'
import { insertSession } from '../../src/store/session.ts'
import { linkUpstreamAccount, listUpstreamAccounts, unlinkUpstreamAccount } from '../../src/store/upstream-account.ts'
import { insertUser } from '../../src/store/user.ts'
import { hashSecret, randomId } from '../../src/tokens/secret.ts'
import { createTestDatabase } from '../support/database.ts'
import { identityProvider } from '../support/identity-provider.ts'

const { db } = await createTestDatabase(t)
for (const id of ['company', 'other']) {
  await insertIdentityProvider(db, identityProvider({ id, issuer: `https://${id}.example` }))
}

/** A user with accounts at these providers. */
async function addPerson(passwordHash: string | null, ...providerIds: string[]): Promise<string> {
  const id = randomId()
  await insertUser(db, { id, username: id, usernameKey: id, passwordHash, isAdministrator: false })
  for (const providerId of providerIds) {
    await linkUpstreamAccount(db, id, { providerId, subject: id, displayName: id })
  }
  return id
}

t.test('the only way to sign in is not unlinked: passwords count where they are used', async (t) => {
  const userId = await addPerson('hash', 'company')
  const key = { userId, providerId: 'company' }
  t.notOk(await unlinkUpstreamAccount(db, key, false))
  t.equal((await listUpstreamAccounts(db, userId)).length, 1)
  t.ok(await unlinkUpstreamAccount(db, key, true))
  t.notOk(await unlinkUpstreamAccount(db, key, true), 'once')
})

t.test('another account counts while its provider is enabled', async (t) => {
  const userId = await addPerson(null, 'company', 'other')
  const key = { userId, providerId: 'company' }
  await setIdentityProviderDisabled(db, 'other', true)
  t.notOk(await unlinkUpstreamAccount(db, key, true))
  await setIdentityProviderDisabled(db, 'other', false)
  t.ok(await unlinkUpstreamAccount(db, key, true))
})

t.test('of two accounts that are unlinked at the same time one stays', async (t) => {
  const people = await Promise.all(Array.from({ length: 10 }, () => addPerson(null, 'company', 'other')))
  const unlink = (userId: string) =>
    Promise.all(['company', 'other'].map((providerId) => unlinkUpstreamAccount(db, { userId, providerId }, true)))
  for (const outcomes of await Promise.all(people.map(unlink))) t.same(outcomes.sort(), [false, true])
})

t.test('no session begins with an account that was unlinked meanwhile, and one that began ends with it', async (t) => {
  const userId = await addPerson('hash', 'company')
  const open = (id: string) =>
    insertSession(db, hashSecret(id), { id: userId, password_hash: 'hash' }, 3600, {
      userAgent: undefined,
      address: '127.0.0.1',
      providerId: 'company',
    })
  t.ok(await open('before'))
  t.ok(await unlinkUpstreamAccount(db, { userId, providerId: 'company' }, true))
  t.same(await db.selectFrom('session').selectAll().where('user_id', '=', userId).execute(), [])
  t.notOk(await open('after'))
})
