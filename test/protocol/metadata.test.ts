import t from 'tap'
import { authorizationServerMetadata, protectedResourceMetadata } from '../../src/protocol/metadata.ts'

const facts = {
  issuer: 'https://auth.example/tenant',
  grantTypes: ['authorization_code', 'refresh_token'],
  registration: true,
  metadataDocument: true,
  issParameter: true,
  scopes: ['read', 'write'],
  signingAlgorithms: ['ES256'],
}

t.test('metadata says what works, with every URL below the issuer (RFC 8414 §2)', async (t) => {
  const metadata = authorizationServerMetadata(facts)
  t.match(metadata, {
    issuer: 'https://auth.example/tenant',
    authorization_endpoint: 'https://auth.example/tenant/authorize',
    token_endpoint: 'https://auth.example/tenant/token',
    registration_endpoint: 'https://auth.example/tenant/register',
    revocation_endpoint: 'https://auth.example/tenant/revoke',
    introspection_endpoint: 'https://auth.example/tenant/introspect',
    scopes_supported: ['read', 'write'],
    response_types_supported: ['code'],
    grant_types_supported: ['authorization_code', 'refresh_token'],
    code_challenge_methods_supported: ['S256'],
    dpop_signing_alg_values_supported: ['ES256', 'PS256', 'RS256', 'EdDSA', 'Ed25519'],
    authorization_response_iss_parameter_supported: true,
  })
  t.ok(metadata.token_endpoint_auth_methods_supported.includes('none'), 'clients look for it')
  t.ok(metadata.token_endpoint_auth_methods_supported.includes('private_key_jwt'))
  t.equal(metadata.client_id_metadata_document_supported, true, 'and with it, for this')
})

t.test('a member without a value is left out: null and empty lists fail the schemas of clients', async (t) => {
  const metadata = authorizationServerMetadata({ ...facts, scopes: [], registration: false })
  t.notOk('scopes_supported' in metadata)
  t.notOk('registration_endpoint' in metadata)
  t.notMatch(JSON.stringify(metadata), /null|""|\[\]/)
})

t.test('the iss switch shows in metadata (RFC 9207 §3)', async (t) => {
  t.equal(
    authorizationServerMetadata({ ...facts, issParameter: false }).authorization_response_iss_parameter_supported,
    false,
  )
})

t.test('a resource server’s document names the issuer exactly (RFC 9728 §2)', async (t) => {
  t.same(protectedResourceMetadata('https://mcp.example.com/mcp', null, 'https://auth.example', []), {
    url: 'https://mcp.example.com/.well-known/oauth-protected-resource/mcp',
    document: {
      resource: 'https://mcp.example.com/mcp',
      authorization_servers: ['https://auth.example'],
      bearer_methods_supported: ['header'],
    },
  })
  t.match(protectedResourceMetadata('https://mcp.example.com', 'Notes', 'https://auth.example', ['read']).document, {
    scopes_supported: ['read'],
    resource_name: 'Notes',
  })
})
