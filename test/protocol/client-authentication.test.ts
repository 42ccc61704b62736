import t from 'tap'
import { readClientCredentials } from '../../src/protocol/client-authentication.ts'

const NO_PARAMETERS = new Map<string, string>()

/** The header as a client makes it that joins the two with a colon, and does or doesn't encode before. */
function basic(text: string): string {
  return `Basic ${Buffer.from(text).toString('base64')}`
}

function readBasic(header: string) {
  return readClientCredentials(header, NO_PARAMETERS).readings
}

t.test('the Basic credentials of RFC 6749 §2.3.1 are read', async (t) => {
  const { method, readings } = readClientCredentials(
    'Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3',
    NO_PARAMETERS,
  )
  t.equal(method, 'client_secret_basic')
  t.same(readings, [{ clientId: 's6BhdRkqt3', clientSecret: '7Fjfp0ZBr1KtDRbnfVdmIw' }])
})

t.test('the body credentials of RFC 6749 §2.3.1 are read', async (t) => {
  const parameters = new Map([
    ['client_id', 's6BhdRkqt3'],
    ['client_secret', '7Fjfp0ZBr1KtDRbnfVdmIw'],
  ])
  t.same(readClientCredentials(undefined, parameters), {
    method: 'client_secret_post',
    readings: [{ clientId: 's6BhdRkqt3', clientSecret: '7Fjfp0ZBr1KtDRbnfVdmIw' }],
  })
})

t.test('an identifier alone is a public client (RFC 6749 §3.2.1)', async (t) => {
  t.same(readClientCredentials(undefined, new Map([['client_id', 'app']])), {
    method: 'none',
    readings: [{ clientId: 'app', clientSecret: undefined }],
  })
})

t.test('Basic credentials are read raw and decoded: clients encode differently (RFC 6749 §2.3.1)', async (t) => {
  t.same(
    readBasic(basic('an%20app:a%2Bb%3Ac')),
    [
      { clientId: 'an%20app', clientSecret: 'a%2Bb%3Ac' },
      { clientId: 'an app', clientSecret: 'a+b:c' },
    ],
    'percent-encoded',
  )
  t.same(
    readBasic(basic('app:a+b')),
    [
      { clientId: 'app', clientSecret: 'a+b' },
      { clientId: 'app', clientSecret: 'a b' },
    ],
    'a plus sign stands for itself or for a space (appendix B)',
  )
  t.same(readBasic(basic('app:a:b:c')), [{ clientId: 'app', clientSecret: 'a:b:c' }], 'the first colon separates')
  t.same(readBasic(basic('app:100%')), [{ clientId: 'app', clientSecret: '100%' }], 'a lone % can only be raw')
  t.same(readBasic(basic('app:%zz%41')), [{ clientId: 'app', clientSecret: '%zz%41' }])
  t.same(readBasic(basic('app:%ff')), [{ clientId: 'app', clientSecret: '%ff' }], 'not UTF-8: can only be raw')
  t.same(readBasic(basic('app:pässword')), [{ clientId: 'app', clientSecret: 'pässword' }], 'UTF-8')
})

t.test('a client_id that is a URL is read, in both forms', async (t) => {
  const url = 'https://claude.ai/oauth/claude-code-client-metadata'
  t.ok(readBasic(basic(`${encodeURIComponent(url)}:`)).some(({ clientId }) => clientId === url))
})

t.test('an empty password is kept apart from none', async (t) => {
  t.same(readBasic(basic('app:')), [{ clientId: 'app', clientSecret: '' }])
})

t.test('the scheme is read in any letter case, and base64 without padding (RFC 9110 §11.1)', async (t) => {
  for (const header of ['basic YXBwOnM=', 'BASIC YXBwOnM=', 'Basic   YXBwOnM=', 'Basic YXBwOnM']) {
    t.same(readBasic(header), [{ clientId: 'app', clientSecret: 's' }], header)
  }
})

t.test('without usable credentials the client is unknown (RFC 6749 §5.2)', async (t) => {
  t.throws(() => readClientCredentials(undefined, NO_PARAMETERS), { code: 'invalid_client' })
  for (const header of ['', 'Basic', 'Basic ', 'Bearer YXBwOnM=', 'Basic %%%', 'Basic YXBwOnM= YXBwOnM=']) {
    t.throws(() => readBasic(header), { code: 'invalid_client' }, JSON.stringify(header))
  }
  for (const text of ['no colon', ':no-name', 'app:nul\0', 'nul\0:s']) {
    t.throws(() => readBasic(basic(text)), { code: 'invalid_client' }, JSON.stringify(text))
  }
  t.same(readBasic(basic('nul%00:s')), [{ clientId: 'nul%00', clientSecret: 's' }], 'a NUL is no reading')
})

t.test('another scheme beside a client_id is invalid_request: invalid_client wipes registrations', async (t) => {
  const named = new Map([['client_id', 'app']])
  t.throws(() => readClientCredentials('Bearer YXBwOnM=', named), { code: 'invalid_request' })
  t.throws(() => readClientCredentials('Basic %%%', named), { code: 'invalid_client' })
})

t.test('more than one method is refused, but a client_id that repeats the header is not (RFC 6749 §2.3)', async (t) => {
  const both = (id: string, secret?: string) =>
    new Map([['client_id', id], ...(secret === undefined ? [] : [['client_secret', secret] as [string, string]])])
  t.throws(() => readClientCredentials(basic('app:s'), both('app', 's')), { code: 'invalid_request' })
  t.throws(() => readClientCredentials(basic('app:s'), both('other')), { code: 'invalid_request' })
  t.equal(readClientCredentials(basic('app:s'), both('app')).method, 'client_secret_basic')
  t.equal(readClientCredentials(basic('an%20app:s'), both('an app')).method, 'client_secret_basic', 'decoded')
})
