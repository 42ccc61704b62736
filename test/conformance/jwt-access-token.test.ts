import { decodeJwt, decodeProtectedHeader } from 'jose'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import t, { type Test } from 'tap'
import { SIGNING_ALGORITHMS } from '../../src/protocol/signing-key.ts'
import { addMachine, issueJwts, obtainMachineToken } from '../support/access-token.ts'
import { obtainTokens, refresh } from '../support/flow.ts'
import { addClient, addResource, RESOURCE, startTestPostern, type TestPostern } from '../support/postern.ts'

const insecure = { [oauth.allowInsecureRequests]: true }

for (const algorithm of SIGNING_ALGORITHMS) {
  t.test(`oauth4webapi validates an access token signed with ${algorithm} (RFC 9068 §4)`, async (t) => {
    const { postern, server, client } = await start(t, algorithm)
    const tokens = await obtainTokens(postern, client)
    t.match(tokens, { token_type: 'Bearer', expires_in: 3600, scope: 'read write' })
    const claims = await oauth.validateJwtAccessToken(server, request(tokens.access_token), RESOURCE, insecure)
    t.match(claims, { iss: postern.issuer, aud: RESOURCE, client_id: client.client_id, scope: 'read write' })
    t.equal(claims.exp - claims.iat, 3600)
    const header = decodeProtectedHeader(tokens.access_token)
    t.match(header, { alg: algorithm, typ: 'at+jwt', kid: /^[\w-]{43}$/ })
    const refreshed = await refresh(postern, client, tokens.refresh_token)
    const next = await oauth.validateJwtAccessToken(
      server,
      request(String(refreshed.body.access_token)),
      RESOURCE,
      insecure,
    )
    t.equal(next.sub, claims.sub)
    t.not(next.jti, claims.jti)
  })
}

t.test('oauth4webapi refuses a token for another resource server (RFC 9068 §4)', async (t) => {
  const { postern, server, client } = await start(t, 'ES256')
  const { access_token } = await obtainTokens(postern, client)
  await t.rejects(oauth.validateJwtAccessToken(server, request(access_token), 'https://other.example/', insecure))
})

t.test('a machine gets a JWT whose subject is itself (RFC 9068 §2.2)', async (t) => {
  const { postern, server } = await start(t, 'ES256')
  const machine = await addMachine(postern)
  const token = await obtainMachineToken(postern, machine)
  const claims = await oauth.validateJwtAccessToken(server, request(token), RESOURCE, insecure)
  t.match(claims, { sub: machine.client_id, client_id: machine.client_id })
})

t.test('oauth4webapi validates a token that is bound to a key, and its proof (RFC 9449 §6.1, §7)', async (t) => {
  const { postern, server } = await start(t, 'ES256')
  const { client_id, client_secret = '' } = await addMachine(postern)
  const client: oauth.Client = { client_id }
  const handle = oauth.DPoP(client, await oauth.generateKeyPair('ES256'))
  const ask = async () => {
    const authentication = oauth.ClientSecretBasic(client_secret)
    const options = { ...insecure, DPoP: handle }
    const response = await oauth.clientCredentialsGrantRequest(server, client, authentication, {}, options)
    return oauth.processClientCredentialsResponse(server, client, response)
  }
  const { access_token, token_type } = await ask().catch((error) => (oauth.isDPoPNonceError(error) ? ask() : error))
  t.equal(token_type, 'dpop')
  const sent = await new Promise<Request>((resolve, reject) => {
    const capture = async (url: string, { headers }: { headers: Record<string, string> }) => {
      resolve(new Request(url, { headers }))
      return new Response()
    }
    const options = { DPoP: handle, [oauth.customFetch]: capture }
    oauth.protectedResourceRequest(access_token, 'GET', new URL(RESOURCE), undefined, undefined, options).catch(reject)
  })
  const options = { ...insecure, requireDPoP: true }
  const claims = await oauth.validateJwtAccessToken(server, sent, RESOURCE, options)
  t.equal(claims.cnf?.jkt, await handle.calculateThumbprint())
  await t.rejects(oauth.validateJwtAccessToken(server, request(access_token), RESOURCE, insecure), 'without the proof')
})

t.test('a client that converges gets the same token again, signed anew', async (t) => {
  const { postern, server, client } = await start(t, 'ES256')
  const first = await obtainTokens(postern, client)
  const pairs = await Promise.all([1, 2, 3].map(() => refresh(postern, client, first.refresh_token)))
  const claims = await Promise.all(
    pairs.map(({ body }) =>
      oauth.validateJwtAccessToken(server, request(String(body.access_token)), RESOURCE, insecure),
    ),
  )
  t.equal(new Set(claims.map(({ jti }) => jti)).size, 1)
  t.equal(new Set(claims.map(({ exp }) => exp)).size, 1)
})

t.test('one client has JWTs at one resource server and opaque tokens at another', async (t) => {
  const { postern, client } = await start(t, 'ES256')
  const other = 'https://other.example/mcp'
  await addResource(postern, other, [{ name: 'read', description: 'Read' }])
  const opaque = await obtainTokens(postern, client, { resource: other })
  t.match(opaque.access_token, /^postern_at_/)
  const jwt = await obtainTokens(postern, client)
  t.equal(decodeJwt(jwt.access_token).aud, RESOURCE)
})

t.test('oauth4webapi and openid-client read signed introspection answers (RFC 9701 §5)', async (t) => {
  const { postern, server, client } = await start(t, 'EdDSA')
  const { access_token: token } = await obtainTokens(postern, client)
  const { id, secret } = postern.resourceServer
  const caller = { client_id: id, introspection_signed_response_alg: 'EdDSA' }
  const response = await oauth.introspectionRequest(server, caller, oauth.ClientSecretBasic(secret), token, {
    ...insecure,
    requestJwtResponse: true,
  })
  t.equal(response.headers.get('content-type'), 'application/token-introspection+jwt')
  const copy = response.clone()
  const answer = await oauth.processIntrospectionResponse(server, caller, response)
  await oauth.validateApplicationLevelSignature(server, response, insecure)
  t.match(answer, { active: true, iss: postern.issuer, aud: RESOURCE, username: 'alice', scope: 'read write' })
  const jwt = await copy.text()
  const header = decodeProtectedHeader(jwt)
  const payload = decodeJwt(jwt)
  t.match(header, { typ: 'token-introspection+jwt', alg: 'EdDSA' })
  t.same(Object.keys(payload).sort(), ['aud', 'iat', 'iss', 'token_introspection'])
  t.equal(payload.aud, id, 'the resource server that asked')

  const configuration = new openid.Configuration(
    server as openid.ServerMetadata,
    id,
    caller,
    openid.ClientSecretPost(secret),
  )
  openid.allowInsecureRequests(configuration)
  openid.enableNonRepudiationChecks(configuration) // it verifies the signature
  t.match(await openid.tokenIntrospection(configuration, token), { active: true, scope: 'read write' })
  t.same(await openid.tokenIntrospection(configuration, 'garbage'), { active: false })
})

t.test('who does not ask for a signed answer gets a plain one (RFC 9701 §4)', async (t) => {
  const { postern, server, client } = await start(t, 'ES256')
  const { access_token: token } = await obtainTokens(postern, client)
  const { id, secret } = postern.resourceServer
  const caller = { client_id: id }
  const response = await oauth.introspectionRequest(server, caller, oauth.ClientSecretBasic(secret), token, insecure)
  t.match(response.headers.get('content-type'), /^application\/json/)
  t.match(await oauth.processIntrospectionResponse(server, caller, response), { active: true, username: 'alice' })
})

async function start(t: Test, signingAlgorithm: (typeof SIGNING_ALGORITHMS)[number]) {
  const postern = await startTestPostern(t, { signingAlgorithm })
  await issueJwts(postern)
  const client = await addClient(postern, { redirectUris: ['https://app.example/callback'] })
  return { postern, client, server: await discover(postern) }
}

async function discover(postern: TestPostern): Promise<oauth.AuthorizationServer> {
  const issuer = new URL(postern.issuer)
  const response = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure })
  return oauth.processDiscoveryResponse(issuer, response)
}

/** What a client sends to the resource server. */
function request(token: string): Request {
  return new Request(RESOURCE, { headers: { authorization: `Bearer ${token}` } })
}
