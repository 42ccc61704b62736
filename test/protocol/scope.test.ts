import t from 'tap'
import { isScopeName, narrowScope, readScope } from '../../src/protocol/scope.ts'

const RESOURCE_SCOPE = ['read', 'write', 'admin']

t.test('a scope name is printable ASCII without space, quote and backslash (RFC 6749 §3.3)', async (t) => {
  for (const name of ['read', '!', '#', '[', ']', '~', 'files:read', 'https://mcp.example.com/read', 'a'.repeat(256)]) {
    t.ok(isScopeName(name), name)
  }
  for (const name of ['', ' ', 'a b', 'a"b', 'a\\b', 'a\tb', 'a\u007f', 'ä', 'a\n', 'a'.repeat(257)]) {
    t.notOk(isScopeName(name), JSON.stringify(name))
  }
})

t.test('a scope parameter is a list without repetitions', async (t) => {
  t.same(readScope('read write'), ['read', 'write'])
  t.same(readScope('  write   read write '), ['write', 'read'])
})

t.test('no scope, an empty one and scopes that mean nothing here all count as absent', async (t) => {
  for (const parameter of [undefined, '', '   ', 'openid', 'offline_access', 'openid profile email offline_access']) {
    t.equal(readScope(parameter), undefined, String(parameter))
  }
  t.same(readScope('openid read offline_access'), ['read'])
})

t.test('text that is no list of scope names is invalid_scope', async (t) => {
  for (const parameter of ['read\twrite', 'read\nwrite', '"read"', 'read\\', 'lesen schön', 'read\u0000']) {
    t.throws(() => readScope(parameter), { code: 'invalid_scope' }, JSON.stringify(parameter))
  }
})

t.test('what may not be granted is narrowed away, not refused; the order is the resource’s', async (t) => {
  t.same(narrowScope(['write', 'read'], { resourceScope: RESOURCE_SCOPE }), ['read', 'write'])
  t.same(narrowScope(['unknown', 'write'], { resourceScope: RESOURCE_SCOPE }), ['write'])
})

t.test('when nothing is left it is invalid_scope', async (t) => {
  t.throws(() => narrowScope(['unknown'], { resourceScope: RESOURCE_SCOPE }), { code: 'invalid_scope' })
  t.throws(() => narrowScope(['write'], { resourceScope: RESOURCE_SCOPE, boundScope: ['read'] }), {
    code: 'invalid_scope',
  })
  t.throws(() => narrowScope(undefined, { resourceScope: RESOURCE_SCOPE, boundScope: ['gone'] }), {
    code: 'invalid_scope',
  })
})

t.test('a client that asks for nothing gets its default, or else all scopes of the resource', async (t) => {
  t.same(narrowScope(undefined, { resourceScope: RESOURCE_SCOPE }), RESOURCE_SCOPE)
  t.same(narrowScope(undefined, { resourceScope: RESOURCE_SCOPE, defaultScope: ['write'] }), ['write'])
  t.same(narrowScope(undefined, { resourceScope: RESOURCE_SCOPE, defaultScope: ['gone', 'read'] }), ['read'])
  t.same(
    narrowScope(undefined, { resourceScope: RESOURCE_SCOPE, defaultScope: ['gone'] }),
    RESOURCE_SCOPE,
    'a stale default',
  )
})

t.test('a default is no bound: the client may ask for more (step-up)', async (t) => {
  t.same(narrowScope(['read', 'write'], { resourceScope: RESOURCE_SCOPE, defaultScope: ['read'] }), ['read', 'write'])
})

t.test('an operator’s bound holds, whatever the client asks for', async (t) => {
  const limits = { resourceScope: RESOURCE_SCOPE, boundScope: ['write', 'read'] }
  t.same(narrowScope(['admin', 'write'], limits), ['write'])
  t.same(narrowScope(undefined, limits), ['read', 'write'])
  t.same(
    narrowScope(undefined, { ...limits, defaultScope: ['admin'] }),
    ['read', 'write'],
    'a default beyond the bound',
  )
})

t.test('a resource without scopes issues none, whatever is asked for', async (t) => {
  t.same(narrowScope(undefined, { resourceScope: [] }), [])
  t.same(narrowScope(['read'], { resourceScope: [], boundScope: ['read'] }), [])
})
