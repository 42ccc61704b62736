import t from 'tap'
import {
  effectiveClientMetadata,
  REGISTRABLE_GRANT_TYPES,
  type RequestedClientMetadata,
} from '../../src/protocol/client-metadata.ts'

const CALLBACK = 'https://app.example/callback'

/** The metadata that takes effect for a request with one redirect URI. */
function effective(requested: RequestedClientMetadata = {}) {
  return effectiveClientMetadata(
    { redirect_uris: [CALLBACK], ...requested },
    {
      redirectSchemes: ['cursor'],
      grantTypes: REGISTRABLE_GRANT_TYPES,
    },
  )
}

t.test('a request with nothing but a redirect URI gets the defaults (RFC 7591 §2)', async (t) => {
  t.same(effective(), {
    name: undefined,
    redirectUris: [CALLBACK],
    tokenEndpointAuthMethod: 'client_secret_basic',
    grantTypes: ['authorization_code', 'refresh_token'],
    defaultScope: undefined,
    dpopBoundAccessTokens: false,
    requirePushedAuthorizationRequests: false,
    description: {},
  })
})

t.test('empty values count as absent', async (t) => {
  const empty = {
    token_endpoint_auth_method: '',
    grant_types: [''],
    response_types: [],
    scope: '',
    client_name: ' ',
    client_uri: '',
    logo_uri: '',
    contacts: [''],
    software_id: '',
    application_type: '',
  }
  t.same(effective(empty), effective())
  t.same(effective({ redirect_uris: ['', CALLBACK, ''] }).redirectUris, [CALLBACK])
})

t.test('redirect URIs of several kinds register together, without repetitions', async (t) => {
  const uris = [
    'cursor://anysphere.cursor-mcp/oauth/callback',
    'https://www.cursor.com/callback',
    'http://localhost:8787/callback',
  ]
  t.same(effective({ redirect_uris: [...uris, ...uris] }).redirectUris, uris)
  t.same(
    effective({ redirect_uris: uris, application_type: 'web' }).redirectUris,
    uris,
    'application_type decides nothing',
  )
})

t.test('one bad redirect URI is refused, not left out: the client would rely on it', async (t) => {
  for (const redirect_uris of [
    undefined,
    [],
    [''],
    [CALLBACK, 'http://app.example/'],
    ['javascript:alert(1)'],
    ['vscode://x'],
  ]) {
    t.throws(() => effective({ redirect_uris }), { code: 'invalid_redirect_uri' }, JSON.stringify(redirect_uris))
  }
})

t.test('unknown grants are filtered; without authorization_code nothing usable is left', async (t) => {
  t.same(effective({ grant_types: ['authorization_code'] }).grantTypes, ['authorization_code'])
  t.same(
    effective({ grant_types: ['urn:ietf:params:oauth:grant-type:jwt-bearer', 'refresh_token', 'authorization_code'] })
      .grantTypes,
    ['authorization_code', 'refresh_token'],
  )
  for (const grant_types of [['client_credentials'], ['refresh_token'], ['implicit', 'password']]) {
    t.throws(() => effective({ grant_types }), { code: 'invalid_client_metadata' }, grant_types.join())
  }
})

t.test('unknown response types are filtered; without code nothing usable is left', async (t) => {
  t.ok(effective({ response_types: ['token', 'code'] }))
  t.throws(() => effective({ response_types: ['token'] }), { code: 'invalid_client_metadata' })
})

t.test('a registration’s scope is a default; what can’t be a scope name is left out', async (t) => {
  t.same(effective({ scope: 'read  write read' }).defaultScope, ['read', 'write'])
  t.same(effective({ scope: 'read "quoted" schön' }).defaultScope, ['read'])
  t.equal(effective({ scope: '"' }).defaultScope, undefined)
})

t.test('scopes of OpenID Connect, which mean nothing here, are no default', async (t) => {
  t.same(effective({ scope: 'openid read offline_access' }).defaultScope, ['read'])
  t.equal(effective({ scope: 'openid profile email offline_access' }).defaultScope, undefined)
})

t.test('the authentication method is one that works here', async (t) => {
  for (const method of ['none', 'client_secret_basic', 'client_secret_post']) {
    t.equal(effective({ token_endpoint_auth_method: method }).tokenEndpointAuthMethod, method)
  }
  for (const method of ['client_secret_jwt', 'tls_client_auth', 'NONE']) {
    t.throws(() => effective({ token_endpoint_auth_method: method }), { code: 'invalid_client_metadata' }, method)
  }
})

t.test('a name can’t pose as another: what reorders or hides text is taken out', async (t) => {
  t.equal(effective({ client_name: ' Claude ' }).name, 'Claude')
  t.equal(effective({ client_name: 'Cla\u200bude' }).name, 'Claude', 'zero-width space')
  t.equal(effective({ client_name: '\u202eedualC\u202c' }).name, 'edualC', 'right-to-left override')
  t.equal(effective({ client_name: '\u2066A\u2069\u200f\u061c\ufeff\u2060' }).name, 'A', 'isolates and marks')
  t.equal(effective({ client_name: 'A\u0000\n\u0085B\ud800' }).name, 'AB', 'control characters, half a surrogate pair')
  t.equal(effective({ client_name: '\u202e\u200b' }).name, undefined, 'nothing is left')
  t.equal(effective({ client_name: 'Пример 例 👩‍👩‍👧' }).name, 'Пример 例 👩‍👩‍👧', 'scripts and emoji stay')
})

t.test('a long name is cut, and not in the middle of a character', async (t) => {
  t.equal(effective({ client_name: 'a'.repeat(500) }).name, 'a'.repeat(200))
  t.ok(effective({ client_name: `${'a'.repeat(199)}😀` }).name?.isWellFormed())
})

t.test('descriptions are kept as sent, but links only to the web', async (t) => {
  const described = {
    client_uri: 'https://app.example',
    logo_uri: 'http://app.example/logo.png',
    tos_uri: 'https://app.example/tos',
    policy_uri: 'https://app.example/privacy',
    contacts: ['ops@app.example'],
    software_id: 'app',
    software_version: '1.2',
    application_type: 'native',
  }
  t.same(effective(described).description, described)
  for (const uri of ['javascript:alert(1)', 'data:text/html,x', 'JAVASCRIPT:x', '/relative', 'not a uri']) {
    t.same(effective({ client_uri: uri, logo_uri: uri, tos_uri: uri, policy_uri: uri }).description, {}, uri)
  }
})
