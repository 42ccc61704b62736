import t from 'tap'
import {
  displayNameOf,
  isProviderId,
  isSubject,
  judgePerson,
  mergeClaims,
  promptFor,
  usernameCandidates,
  verifiedEmail,
} from '../../src/protocol/upstream.ts'

const OPEN = { allowed_domains: null, required_claims: [] }
const COMPANY = { id: 'company', username_claim: 'preferred_username', trusts_email: false }
const TRUSTED = { ...COMPANY, trusts_email: true }
const SUFFIX = '0123456789abcdef'
const LAST = `${SUFFIX}/company`

t.test(
  'an e-mail address counts when the provider says that it has verified it (OpenID Connect Core §5.1)',
  async (t) => {
    for (const verified of [true, 'true']) {
      t.equal(verifiedEmail({ email: 'Zoe@Example.com', email_verified: verified }), 'zoe@example.com')
    }
    for (const verified of [false, 'false', 'yes', 1, null, undefined]) {
      t.equal(verifiedEmail({ email: 'zoe@example.com', email_verified: verified }), undefined, String(verified))
    }
    for (const email of ['zoe', 'zoe@', '@example.com', 'a@b@c', 'a b@c', 'a@b/c', ['a@b'], 7, undefined]) {
      t.equal(verifiedEmail({ email, email_verified: true }), undefined, String(email))
    }
  },
)

t.test('an address in compatibility forms passes for no other one', async (t) => {
  for (const email of ['ｚoe@example.com', 'zoe@ｅxample.com', 'zoe@example．com']) {
    t.equal(verifiedEmail({ email, email_verified: true }), undefined, email)
  }
  t.equal(verifiedEmail({ email: 'jos\u00e9@example.com', email_verified: true }), 'jos\u00e9@example.com')
})

t.test('without demands everybody may sign in, also without an address', async (t) => {
  t.equal(judgePerson(OPEN, {}), 'allowed')
})

t.test('a domain is that of the verified address, whole', async (t) => {
  const policy = { ...OPEN, allowed_domains: ['example.com'] }
  const judge = (email: string, verified = true) => judgePerson(policy, { email, email_verified: verified })
  t.equal(judge('zoe@example.com'), 'allowed')
  t.equal(judge('zoe@EXAMPLE.com'), 'allowed')
  t.equal(judge('zoe@example.com', false), 'domain_not_allowed')
  for (const email of ['zoe@mail.example.com', 'zoe@example.com.evil.example', 'zoe@evilexample.com', 'example.com']) {
    t.equal(judge(email), 'domain_not_allowed', email)
  }
  t.equal(judgePerson(policy, {}), 'domain_not_allowed')
  t.equal(judgePerson({ ...OPEN, allowed_domains: [] }, { email: 'a@b', email_verified: true }), 'domain_not_allowed')
})

t.test('every claim that is demanded holds one of its values, or is a list that does', async (t) => {
  const groups = { claim: 'groups', values: ['staff', 'sales'] }
  const judge = (claims: Record<string, unknown>, required = [groups]) =>
    judgePerson({ ...OPEN, required_claims: required }, claims)
  for (const value of ['staff', ['guests', 'sales'], ['staff', { id: 1 }]]) {
    t.equal(judge({ groups: value }), 'allowed', JSON.stringify(value))
  }
  for (const value of [undefined, null, '', 'staff sales', 'Staff', [], ['guests'], [['staff']], { staff: true }]) {
    t.equal(judge({ groups: value }), 'claim_missing', JSON.stringify(value))
  }
  const both = [groups, { claim: 'hd', values: ['example.com'] }]
  t.equal(judge({ groups: 'staff' }, both), 'claim_missing')
  t.equal(judge({ groups: 'staff', hd: 'example.com' }, both), 'allowed')
  t.equal(judge({ active: true, level: 3 }, [{ claim: 'active', values: ['true'] }]), 'allowed', 'also a boolean')
})

t.test('a new user is called as the claim says, and by a name of their own when that is taken', async (t) => {
  t.same(usernameCandidates(COMPANY, { preferred_username: ' zoe ' }, 's1', SUFFIX), [
    'zoe',
    'zoe/company',
    's1/company',
    LAST,
  ])
  t.same(usernameCandidates({ ...COMPANY, username_claim: 'nickname' }, { preferred_username: 'zoe' }, 's1', SUFFIX), [
    's1/company',
    LAST,
  ])
  t.same(usernameCandidates(COMPANY, { preferred_username: 'two words' }, 's1', SUFFIX), ['s1/company', LAST])
  t.same(usernameCandidates(COMPANY, { preferred_username: 7 }, 'of two words', SUFFIX), [LAST])
})

t.test('nobody is called by an address that nobody has verified', async (t) => {
  const claims = { preferred_username: 'zoe@example.com', email: 'zoe@example.com', email_verified: true }
  t.same(usernameCandidates(TRUSTED, claims, 's1', SUFFIX)[0], 'zoe@example.com')
  const marked = ['zoe@example.com/company', 's1/company', LAST]
  t.same(usernameCandidates(COMPANY, claims, 's1', SUFFIX), marked, 'the provider is not trusted for addresses')
  t.same(usernameCandidates(TRUSTED, { ...claims, email_verified: false }, 's1', SUFFIX), marked)
  t.same(usernameCandidates(TRUSTED, { ...claims, preferred_username: 'ceo@example.com' }, 's1', SUFFIX), [
    'zoe@example.com',
    'ceo@example.com/company',
    's1/company',
    LAST,
  ])
  for (const written of ['zoe＠example.com', 'zoe﹫example.com']) {
    t.notOk(usernameCandidates(COMPANY, { preferred_username: written }, 's1', SUFFIX).includes(written), written)
  }
})

t.test('nobody is called as people of another provider are, however the slash is written', async (t) => {
  for (const written of ['zoe/other', 'zoe／other']) {
    const names = usernameCandidates(COMPANY, { preferred_username: written }, 's1', SUFFIX)
    t.same(names, [`${written}/company`, 's1/company', LAST], written)
  }
})

t.test('an address and whether it is verified come from the same teller', async (t) => {
  const userinfo = { sub: 's1', email: 'zoe@example.com', email_verified: true, name: 'Zoe' }
  t.match(mergeClaims({ email: 'ceo@example.com' }, userinfo), { email: 'zoe@example.com', email_verified: true })
  t.match(mergeClaims({ email_verified: true }, { email: 'ceo@example.com' }), { email_verified: undefined })
  t.match(mergeClaims({ email: 'zoe@example.com', email_verified: false }, userinfo), { email_verified: false })
  t.match(mergeClaims({ email: 'ceo@example.com' }, { email_verified: true }), { email_verified: undefined })
  t.match(mergeClaims({ name: 'Of the token' }, userinfo), { name: 'Of the token', email: 'zoe@example.com' })
})

t.test('subjects and ids that can not be stored, or stand in an address, are none', async (t) => {
  for (const subject of ['s1', 'auth0|5f7c', 'x'.repeat(255), 'José Ñ']) t.ok(isSubject(subject), subject)
  for (const subject of ['', 'x'.repeat(256), 'a\0', 'a\n', '\ud800'])
    t.notOk(isSubject(subject), JSON.stringify(subject))
  for (const id of ['company', 'a', 'a-1', 'a'.repeat(32)]) t.ok(isProviderId(id), id)
  for (const id of ['', '\0', 'Company', '-a', 'a-', 'a/b', 'a\n', 'a'.repeat(33)])
    t.notOk(isProviderId(id), JSON.stringify(id))
})

t.test('a provider is not asked with a word that it would refuse', async (t) => {
  const sso = 'https://sso.example.com/realms/staff'
  t.same(promptFor(sso, undefined, undefined), [])
  t.same(promptFor(sso, undefined, 'login'), ['login'])
  t.same(promptFor(sso, undefined, 'select_account login'), ['login'], 'it says nothing: login is what all know')
  t.same(promptFor(sso, ['none', 'login', 'select_account'], 'select_account login'), ['select_account', 'login'])
  t.same(promptFor(sso, ['none', 'select_account'], 'login'), ['select_account'])
  t.same(promptFor(sso, ['none'], 'login'), [])
  t.same(promptFor('https://accounts.google.com', undefined, 'login'), ['select_account'])
})

t.test('an account is shown by a name, or else by its subject', async (t) => {
  t.equal(displayNameOf(COMPANY, { preferred_username: 'zoe', email: 'z@example.com' }, 's1'), 'zoe')
  t.equal(displayNameOf(COMPANY, { email: 'z@example.com' }, 's1'), 'z@example.com')
  t.equal(displayNameOf(COMPANY, { name: ' ', email: 5 }, 's1'), 's1')
  t.equal(displayNameOf(COMPANY, { preferred_username: '\0', name: ' z\0o\ne' }, 's1'), 'zoe', 'which can be stored')
  t.equal(displayNameOf(COMPANY, { name: 'x'.repeat(500) }, 's1').length, 200)
})
