import t from 'tap'
import { passwordProblem, usernameKey } from '../../src/protocol/username.ts'

t.test('case, compatibility forms and surrounding space don’t tell people apart', async (t) => {
  for (const name of ['alice', 'Alice', ' ALICE ', 'ａｌｉｃｅ', 'ⓐlice']) t.equal(usernameKey(name), 'alice', name)
  t.equal(usernameKey('Zo\u00eb'), usernameKey('Zoe\u0308'), 'composed and decomposed')
  t.equal(usernameKey('алиса@example.com'), 'алиса@example.com')
  t.not(usernameKey('alice'), usernameKey('alicе'), 'another letter that looks alike is another name')
})

t.test('a username is not empty, and has no white space or invisible characters', async (t) => {
  for (const name of [
    '',
    '   ',
    'a b',
    'a\tb',
    'a\u00a0b',
    'a\u200bb',
    'a\u00adb',
    'a\u202eb',
    'a\u0000b',
    'a\ufeffb',
    '\ud800',
    '\ue000',
  ]) {
    t.equal(usernameKey(name), undefined, JSON.stringify(name))
  }
})

t.test('a username has at most 128 characters', async (t) => {
  t.equal(usernameKey('a'.repeat(128)), 'a'.repeat(128))
  t.equal(usernameKey('a'.repeat(129)), undefined)
  t.equal(usernameKey('ﬃ'.repeat(50)), undefined, 'counted after it has been brought into its form')
})

t.test('the key of a key is the key', async (t) => {
  for (const name of ['Alice', 'İstanbul', 'STRASSE', 'ΣΊΣΥΦΟΣ', 'ﬁn', '①']) {
    const key = usernameKey(name) ?? ''
    t.equal(usernameKey(key), key, name)
  }
})

t.test('a password has 8 to 1,024 characters, whatever they are (NIST SP 800-63B §3.1.1.2)', async (t) => {
  for (const good of ['12345678', '        ', 'пароль12', '🔑'.repeat(8), 'a'.repeat(1024)])
    t.equal(passwordProblem(good), undefined)
  for (const bad of ['', '1234567', '🔑'.repeat(7), 'a'.repeat(1025)]) t.type(passwordProblem(bad), 'string')
})
