import t from 'tap'
import { readParameters, required, sortParameters } from '../../src/protocol/parameters.ts'

t.test('an empty parameter counts as absent (RFC 6749 §3.1)', async (t) => {
  const parameters = readParameters({ scope: '', state: 'x' })
  t.same([...parameters], [['state', 'x']])
  t.throws(() => required(parameters, 'scope'), { code: 'invalid_request' })
  t.equal(required(parameters, 'state'), 'x')
})

t.test('a parameter may not come twice; a second resource is invalid_target (RFC 6749 §3.1)', async (t) => {
  t.throws(() => readParameters({ code: ['a', 'a'] }), { code: 'invalid_request' })
  t.throws(() => readParameters({ resource: ['https://a.example', 'https://b.example'] }), { code: 'invalid_target' })
})

t.test('what is wrong with one parameter leaves the others readable', async (t) => {
  const { parameters, problems } = sortParameters({ client_id: 'app', scope: ['a', 'b'] })
  t.equal(parameters.get('client_id'), 'app')
  t.notOk(parameters.has('scope'))
  t.match(problems.get('scope'), { code: 'invalid_request' })
})

t.test('a value has at most 8,192 characters, and no NUL, which the database can’t keep', async (t) => {
  t.equal(readParameters({ state: 'a'.repeat(8192) }).get('state')?.length, 8192)
  t.throws(() => readParameters({ state: 'a'.repeat(8193) }), { code: 'invalid_request' })
  t.throws(() => readParameters({ code: 'a\0b' }), { code: 'invalid_request' })
  t.throws(() => readParameters({ 'a\0b': 'code' }), { code: 'invalid_request' }, 'nor has its name')
})

t.test('no body, or one that is no form, has no parameters', async (t) => {
  for (const body of [undefined, null, 'text', 7]) t.equal(readParameters(body).size, 0, String(body))
  t.throws(() => readParameters({ code: { a: 1 } }), { code: 'invalid_request' })
})

t.test('names that objects have by themselves are no parameters', async (t) => {
  const parameters = readParameters({ state: 'x' })
  for (const name of ['constructor', 'toString', '__proto__', 'hasOwnProperty'])
    t.equal(parameters.get(name), undefined)
})
