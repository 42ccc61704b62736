/**
 * The two certified libraries, strict as they are, from discovery to revocation. Plain http is allowed to them by
 * their own switch, since everything is on this computer.
 */
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import t, { type Test } from 'tap'
import { letTimePass } from '../support/database.ts'
import { Person } from '../support/person.ts'
import { freePort, RESOURCE, startTestPostern, type TestPostern } from '../support/postern.ts'

const METHODS = ['none', 'client_secret_basic', 'client_secret_post'] as const
const REDIRECT_URI = 'https://app.example/callback'
const HTTP = { [oauth.allowInsecureRequests]: true }

for (const path of ['', '/auth']) {
  t.test(`issuer with the path "${path}"`, async (t) => {
    const port = await freePort()
    const postern = await startTestPostern(t, { port, issuer: `http://localhost:${port}${path}` })
    for (const method of METHODS) {
      t.test(`oauth4webapi: ${method}`, (t) => withOauth4webapi(t, postern, method))
      t.test(`openid-client: ${method}`, (t) => withOpenidClient(t, postern, method))
    }
  })
}

async function withOauth4webapi(t: Test, postern: TestPostern, method: (typeof METHODS)[number]): Promise<void> {
  const issuer = new URL(postern.issuer)
  const discovered = await oauth.discoveryRequest(issuer, { ...HTTP, algorithm: 'oauth2' })
  const as = await oauth.processDiscoveryResponse(issuer, discovered)
  const registered = await oauth.dynamicClientRegistrationRequest(
    as,
    { redirect_uris: [REDIRECT_URI], token_endpoint_auth_method: method, client_name: 'oauth4webapi' },
    HTTP,
  )
  const client = await oauth.processDynamicClientRegistrationResponse(registered)
  t.equal(client.token_endpoint_auth_method, method)
  const secret = String(client.client_secret)
  const authentication = {
    none: oauth.None(),
    client_secret_basic: oauth.ClientSecretBasic(secret),
    client_secret_post: oauth.ClientSecretPost(secret),
  }[method]

  const verifier = oauth.generateRandomCodeVerifier()
  const state = oauth.generateRandomState()
  const authorize = new URL(String(as.authorization_endpoint))
  authorize.search = new URLSearchParams({
    client_id: client.client_id,
    redirect_uri: REDIRECT_URI,
    response_type: 'code',
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    scope: 'read',
    resource: RESOURCE,
    state,
  }).toString()
  const answer = await new Person().authorize(authorize.href)
  const parameters = oauth.validateAuthResponse(as, client, answer, state) // with iss (RFC 9207)
  const redeemed = await oauth.authorizationCodeGrantRequest(
    as,
    client,
    authentication,
    parameters,
    REDIRECT_URI,
    verifier,
    { ...HTTP, additionalParameters: { resource: RESOURCE } },
  )
  const tokens = await oauth.processAuthorizationCodeResponse(as, client, redeemed)
  t.match(tokens, { token_type: 'bearer', expires_in: 3600, scope: 'read' })

  await letTimePass(postern.db, 3601)
  t.equal((await introspected(tokens.access_token)).active, false)
  const refreshed = await oauth.processRefreshTokenResponse(
    as,
    client,
    await oauth.refreshTokenGrantRequest(as, client, authentication, String(tokens.refresh_token), HTTP),
  )
  t.match(refreshed, { token_type: 'bearer', scope: 'read' })
  t.match(await introspected(refreshed.access_token), {
    active: true,
    iss: postern.issuer,
    aud: RESOURCE,
    client_id: client.client_id,
    scope: 'read',
  })

  for (const token of [refreshed.access_token, String(refreshed.refresh_token)]) {
    t.equal(
      await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, authentication, token, HTTP)),
      undefined,
    )
  }
  t.equal((await introspected(refreshed.access_token)).active, false)
  const refused = await oauth.refreshTokenGrantRequest(
    as,
    client,
    authentication,
    String(refreshed.refresh_token),
    HTTP,
  )
  t.match(await errorOf(oauth.processRefreshTokenResponse(as, client, refused)), {
    error: 'invalid_grant',
    status: 400,
  })
  if (method !== 'none') {
    const wrong = await oauth.refreshTokenGrantRequest(as, client, oauth.ClientSecretBasic('wrong'), 'any', HTTP)
    t.match(await errorOf(oauth.processRefreshTokenResponse(as, client, wrong)), {
      code: oauth.WWW_AUTHENTICATE_CHALLENGE,
      status: 401,
    })
  }

  async function introspected(token: string): Promise<oauth.IntrospectionResponse> {
    const { id, secret } = postern.resourceServer
    const server = { client_id: id }
    const response = await oauth.introspectionRequest(as, server, oauth.ClientSecretPost(secret), token, HTTP)
    return oauth.processIntrospectionResponse(as, server, response)
  }
}

async function withOpenidClient(t: Test, postern: TestPostern, method: (typeof METHODS)[number]): Promise<void> {
  const issuer = new URL(postern.issuer)
  const options: openid.DiscoveryRequestOptions = { algorithm: 'oauth2', execute: [openid.allowInsecureRequests] }
  const authentication = {
    none: openid.None(),
    client_secret_basic: openid.ClientSecretBasic(),
    client_secret_post: openid.ClientSecretPost(),
  }[method]
  const config = await openid.dynamicClientRegistration(
    issuer,
    { redirect_uris: [REDIRECT_URI], token_endpoint_auth_method: method, client_name: 'openid-client' },
    authentication,
    options,
  )
  t.equal(config.clientMetadata().token_endpoint_auth_method, method)
  const verifier = openid.randomPKCECodeVerifier()
  const state = openid.randomState()
  const address = openid.buildAuthorizationUrl(config, {
    redirect_uri: REDIRECT_URI,
    code_challenge: await openid.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    resource: RESOURCE,
    state,
  })
  const answer = await new Person().authorize(address.href)
  const checks = { pkceCodeVerifier: verifier, expectedState: state }
  const tokens = await openid.authorizationCodeGrant(config, answer, checks, { resource: RESOURCE })
  t.match(tokens, { token_type: 'bearer', expires_in: 3600, scope: 'read write' })

  const refreshed = await openid.refreshTokenGrant(config, String(tokens.refresh_token), {
    resource: RESOURCE,
    scope: 'read',
  })
  t.equal(refreshed.scope, 'read')
  const { id, secret } = postern.resourceServer
  const resourceServer = await openid.discovery(issuer, id, secret, openid.ClientSecretBasic(secret), options)
  t.match(await openid.tokenIntrospection(resourceServer, refreshed.access_token), {
    active: true,
    scope: 'read',
    token_type: 'Bearer',
  })
  await openid.tokenRevocation(config, String(refreshed.refresh_token), { token_type_hint: 'refresh_token' })
  t.strictSame(await openid.tokenIntrospection(resourceServer, refreshed.access_token), { active: false })
  t.match(await errorOf(openid.refreshTokenGrant(config, String(refreshed.refresh_token))), { error: 'invalid_grant' })

  address.searchParams.set('prompt', 'consent')
  const denied = await new Person().authorize(address.href, { decision: 'deny' })
  t.match(await errorOf(openid.authorizationCodeGrant(config, denied, checks)), { error: 'access_denied' })
}

async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error) => error,
  )
}
