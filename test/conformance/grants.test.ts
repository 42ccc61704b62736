/**
 * Every part of Postern that the two certified libraries speak, beyond the plain flow of libraries.test.ts: pushed
 * requests, machines, devices, step-up, and what a client does with its registration. Neither library manages
 * registrations (RFC 7592), so those requests are made by hand, and oauth4webapi reads the answers.
 */
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import t from 'tap'
import { type ClientKey, makeKey } from '../support/assertion.ts'
import { letTimePass } from '../support/database.ts'
import { introspect, isActive } from '../support/flow.ts'
import { Person, textOf } from '../support/person.ts'
import { addClient, RESOURCE, startTestPostern } from '../support/postern.ts'

const REDIRECT_URI = 'https://app.example/callback'
const DEVICE_CODE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code'
const HTTP = { [oauth.allowInsecureRequests]: true }

const postern = await startTestPostern(t)
const issuer = new URL(postern.issuer)
const discovered = await oauth.discoveryRequest(issuer, { ...HTTP, algorithm: 'oauth2' })
const as = await oauth.processDiscoveryResponse(issuer, discovered)
const key = await makeKey()

/** Authentication as each library has it. */
const METHODS = {
  client_secret_basic: { oauth: oauth.ClientSecretBasic, openid: openid.ClientSecretBasic },
  client_secret_post: { oauth: oauth.ClientSecretPost, openid: openid.ClientSecretPost },
  private_key_jwt: { oauth: () => oauth.PrivateKeyJwt(keyOf(key)), openid: () => openid.PrivateKeyJwt(keyOf(key)) },
} as const

function keyOf({ privateKey, publicJwk }: ClientKey) {
  return { key: privateKey, kid: String(publicJwk.kid) }
}

/** A client of openid-client. */
function configure(clientId: string, authentication: openid.ClientAuth = openid.None()): openid.Configuration {
  const configuration = new openid.Configuration(as as openid.ServerMetadata, clientId, undefined, authentication)
  openid.allowInsecureRequests(configuration)
  return configuration
}

/** What a client of oauth4webapi does, once more when a nonce is demanded (RFC 9449 §8). */
async function withNonce<T>(attempt: () => Promise<T>): Promise<T> {
  return attempt().catch((error) => {
    if (oauth.isDPoPNonceError(error)) return attempt()
    throw error
  })
}

for (const bound of [false, true]) {
  const how = bound ? 'with a key (RFC 9449 §10.1)' : 'with a secret'
  t.test(`openid-client pushes its request ${how}, redeems, refreshes and revokes (RFC 9126)`, async (t) => {
    const client = await addClient(postern, {
      redirectUris: [REDIRECT_URI],
      ...(bound ? {} : { tokenEndpointAuthMethod: 'client_secret_basic' }),
    })
    const configuration = configure(
      client.client_id,
      bound ? openid.None() : openid.ClientSecretBasic(client.client_secret),
    )
    const options = bound
      ? { DPoP: openid.getDPoPHandle(configuration, await openid.randomDPoPKeyPair('ES256')) }
      : undefined
    const verifier = openid.randomPKCECodeVerifier()
    const state = openid.randomState()
    const url = await openid.buildAuthorizationUrlWithPAR(
      configuration,
      {
        redirect_uri: REDIRECT_URI,
        code_challenge: await openid.calculatePKCECodeChallenge(verifier),
        code_challenge_method: 'S256',
        resource: RESOURCE,
        state,
      },
      options,
    )
    t.strictSame([...url.searchParams.keys()].sort(), ['client_id', 'request_uri'], 'nothing else is in the link')
    const callback = await new Person().authorize(url.href)
    const checks = { pkceCodeVerifier: verifier, expectedState: state }
    const tokens = await openid.authorizationCodeGrant(configuration, callback, checks, undefined, options)
    t.equal(tokens.token_type, bound ? 'dpop' : 'bearer')
    const refreshed = await openid.refreshTokenGrant(configuration, String(tokens.refresh_token), undefined, options)
    t.ok(await isActive(postern, refreshed.access_token))
    await openid.tokenRevocation(configuration, String(refreshed.refresh_token))
    t.notOk(await isActive(postern, refreshed.access_token))
  })
}

for (const [method, { oauth: ofOauth, openid: ofOpenid }] of Object.entries(METHODS)) {
  t.test(`both libraries get tokens for a machine with ${method} (RFC 6749 §4.4)`, async (t) => {
    const { client_id, client_secret = '' } = await addClient(postern, {
      redirectUris: [],
      tokenEndpointAuthMethod: method as keyof typeof METHODS,
      grantTypes: ['client_credentials'],
      ...(method === 'private_key_jwt' ? { keys: { jwks: [key.publicJwk] } } : {}),
    })
    const expected = { active: true, sub: client_id, client_id, scope: 'read', token_type: 'Bearer' }

    const client = { client_id }
    const proof = ofOauth(client_secret)
    const asked = { scope: 'read', resource: RESOURCE }
    const response = await oauth.clientCredentialsGrantRequest(as, client, proof, asked, HTTP)
    const machine = await oauth.processClientCredentialsResponse(as, client, response)
    t.notOk('refresh_token' in machine)
    t.match(await introspect(postern, machine.access_token), expected)
    await oauth.processRevocationResponse(
      await oauth.revocationRequest(as, client, ofOauth(client_secret), machine.access_token, HTTP),
    )
    t.notOk(await isActive(postern, machine.access_token))

    const configuration = configure(client_id, ofOpenid(client_secret))
    const tokens = await openid.clientCredentialsGrant(configuration, asked)
    t.notOk('refresh_token' in tokens)
    t.match(await introspect(postern, tokens.access_token), expected)
    await openid.tokenRevocation(configuration, tokens.access_token)
    t.notOk(await isActive(postern, tokens.access_token))
  })
}

t.test('oauth4webapi polls for a device until its person has approved (RFC 8628 §3.4)', async (t) => {
  const { client_id } = await addDevice()
  const client: oauth.Client = { client_id }
  const DPoP = oauth.DPoP(client, await oauth.generateKeyPair('ES256'))
  const asked = { scope: 'read', resource: RESOURCE }
  const response = await oauth.deviceAuthorizationRequest(as, client, oauth.None(), asked, HTTP)
  const device = await oauth.processDeviceAuthorizationResponse(as, client, response)
  t.match(device, { verification_uri: `${postern.issuer}/device`, interval: 5, expires_in: 600 })
  const poll = () =>
    withNonce(async () => {
      const options = { ...HTTP, DPoP }
      const answer = await oauth.deviceCodeGrantRequest(as, client, oauth.None(), device.device_code, options)
      return oauth.processDeviceCodeResponse(as, client, answer)
    })
  t.match(await errorOf(poll()), { error: 'authorization_pending', status: 400 })
  t.match(await errorOf(poll()), { error: 'slow_down', status: 400 })
  await letTimePass(postern.db, 10)
  await decideDevice(device.verification_uri_complete ?? '', 'approve')
  const tokens = await poll()
  t.match(tokens, { token_type: 'dpop', scope: 'read' })
  const jkt = await DPoP.calculateThumbprint()
  t.match(await introspect(postern, tokens.access_token), { active: true, username: 'alice', cnf: { jkt } })
  const refreshed = await withNonce(async () => {
    const options = { ...HTTP, DPoP }
    const answer = await oauth.refreshTokenGrantRequest(as, client, oauth.None(), String(tokens.refresh_token), options)
    return oauth.processRefreshTokenResponse(as, client, answer)
  })
  t.equal(refreshed.scope, 'read')
  t.match(await errorOf(poll()), { error: 'invalid_grant' }, 'a code is redeemed once')
})

t.test(
  'openid-client gets the tokens of a device, or learns that its person has refused (RFC 8628 §3.5)',
  async (t) => {
    const { client_id } = await addDevice()
    const configuration = configure(client_id)
    const started = async () => {
      const device = await openid.initiateDeviceAuthorization(configuration, { resource: RESOURCE })
      return { ...device, interval: 0 } // the library waits before its first request
    }
    const denied = await started()
    await decideDevice(String(denied.verification_uri_complete), 'deny')
    t.match(await errorOf(openid.pollDeviceAuthorizationGrant(configuration, denied)), { error: 'access_denied' })
    const approved = await started()
    await decideDevice(String(approved.verification_uri_complete), 'approve')
    const tokens = await openid.pollDeviceAuthorizationGrant(configuration, approved)
    t.match(tokens, { token_type: 'bearer', scope: 'read write' })
    const refreshed = await openid.refreshTokenGrant(configuration, String(tokens.refresh_token))
    t.ok(await isActive(postern, refreshed.access_token))
  },
)

t.test('oauth4webapi: a client reads, replaces and deletes its registration (RFC 7592 §2)', async (t) => {
  const request = { redirect_uris: [REDIRECT_URI], token_endpoint_auth_method: 'none', client_name: 'Before' }
  const registered = await oauth.processDynamicClientRegistrationResponse(
    await oauth.dynamicClientRegistrationRequest(as, request, HTTP),
  )
  const read = await readRegistration(await manage(registered, 'GET'))
  t.strictSame(read, registered, 'what was registered')

  const changed = { redirect_uris: [REDIRECT_URI], token_endpoint_auth_method: 'client_secret_post' }
  const replaced = await readRegistration(
    await manage(registered, 'PUT', { ...changed, client_id: registered.client_id }),
  )
  t.notOk('client_name' in replaced, 'what is left out goes')
  const proof = oauth.ClientSecretPost(String(replaced.client_secret))
  const verifier = oauth.generateRandomCodeVerifier()
  const callback = await new Person().authorize(await addressFor(replaced.client_id, verifier, 'read'))
  const tokens = await oauth.processAuthorizationCodeResponse(
    as,
    replaced,
    await oauth.authorizationCodeGrantRequest(
      as,
      replaced,
      proof,
      oauth.validateAuthResponse(as, replaced, callback),
      REDIRECT_URI,
      verifier,
      HTTP,
    ),
  )
  t.equal((await manage(replaced, 'DELETE')).status, 204)
  t.notOk(await isActive(postern, tokens.access_token))
  const refused = await oauth.refreshTokenGrantRequest(as, replaced, proof, String(tokens.refresh_token), HTTP)
  t.match(await errorOf(oauth.processRefreshTokenResponse(as, replaced, refused)), { status: 401 })
})

t.test('openid-client: a client that has replaced its registration goes on with what it says now', async (t) => {
  const configuration = await openid.dynamicClientRegistration(
    issuer,
    { redirect_uris: ['https://before.example/callback'], token_endpoint_auth_method: 'client_secret_basic' },
    openid.ClientSecretBasic(),
    { algorithm: 'oauth2', execute: [openid.allowInsecureRequests] },
  )
  const registered = configuration.clientMetadata() as oauth.OmitSymbolProperties<oauth.Client>
  const replaced = await readRegistration(
    await manage(registered, 'PUT', {
      client_id: registered.client_id,
      redirect_uris: [REDIRECT_URI],
      token_endpoint_auth_method: 'client_secret_basic',
    }),
  )
  t.strictSame(replaced.redirect_uris, [REDIRECT_URI])
  const verifier = openid.randomPKCECodeVerifier()
  const callback = await new Person().authorize(await addressFor(registered.client_id, verifier, 'read'))
  const tokens = await openid.authorizationCodeGrant(configuration, callback, { pkceCodeVerifier: verifier })
  t.ok(await isActive(postern, tokens.access_token), 'the secret stayed')
  t.equal((await manage(registered, 'DELETE')).status, 204)
  t.match(await errorOf(openid.refreshTokenGrant(configuration, String(tokens.refresh_token))), { status: 401 })
})

for (const library of ['oauth4webapi', 'openid-client'] as const) {
  t.test(`${library}: a step-up asks about the new scopes alone, and the old tokens live on`, async (t) => {
    const { client_id } = await addClient(postern, { redirectUris: [REDIRECT_URI] })
    const client = { client_id }
    const configuration = configure(client_id)
    const person = new Person()
    const authorize = async (scope: string) => {
      const verifier = oauth.generateRandomCodeVerifier()
      const address = await addressFor(client_id, verifier, scope)
      const question = await questionAt(person, address)
      const callback = await person.authorize(address)
      if (library === 'openid-client') {
        const tokens = await openid.authorizationCodeGrant(configuration, callback, { pkceCodeVerifier: verifier })
        return { question, tokens }
      }
      const parameters = oauth.validateAuthResponse(as, client, callback)
      const response = await oauth.authorizationCodeGrantRequest(
        as,
        client,
        oauth.None(),
        parameters,
        REDIRECT_URI,
        verifier,
        HTTP,
      )
      return { question, tokens: await oauth.processAuthorizationCodeResponse(as, client, response) }
    }
    await person.signIn(postern.issuer)
    const first = await authorize('read')
    t.match(first.question, /It will be able to Read your notes/)
    const second = await authorize('read write')
    t.match(second.question, /It will be able to Change your notes.*Already allowed Read your notes/)
    t.equal(second.tokens.scope, 'read write')
    t.match(await introspect(postern, first.tokens.access_token), { active: true, scope: 'read' })
    const refreshed = await openid.refreshTokenGrant(configuration, String(first.tokens.refresh_token))
    t.equal(refreshed.scope, 'read', 'and grow no further than they were approved')
    t.ok(await isActive(postern, second.tokens.access_token))
    const third = await authorize('read write')
    t.equal(third.question, undefined, 'nothing is new: nobody is asked')
  })
}

async function addDevice() {
  return addClient(postern, { redirectUris: [], grantTypes: [DEVICE_CODE_GRANT, 'refresh_token'] })
}

/** An authorization request as both libraries make it. */
async function addressFor(clientId: string, verifier: string, scope: string): Promise<string> {
  return openid.buildAuthorizationUrl(configure(clientId), {
    redirect_uri: REDIRECT_URI,
    code_challenge: await openid.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    resource: RESOURCE,
    scope,
  }).href
}

/** What a person who is signed in is asked; `undefined` when the answer goes to the client at once. */
async function questionAt(person: Person, address: string): Promise<string | undefined> {
  const location = (await person.request(address)).headers.get('location') ?? ''
  const next = new URL(location, address)
  return next.origin === issuer.origin ? textOf(await (await person.request(next.href)).text()) : undefined
}

/** What the person at the device does: signs in, sees whose code it is, decides. */
async function decideDevice(address: string, decision: 'approve' | 'deny'): Promise<void> {
  const person = new Person()
  await person.signIn(postern.issuer)
  const entered = { address, html: await (await person.request(address)).text() }
  const code = new URL(address).searchParams.get('user_code') ?? ''
  const question = { address, html: await (await person.submit(entered, '/device', { user_code: code })).text() }
  await person.submit(question, '/device/decision', { decision })
}

/** A request to the client configuration endpoint. */
async function manage(
  client: { [member: string]: unknown },
  method: 'GET' | 'PUT' | 'DELETE',
  body?: object,
): Promise<Response> {
  return fetch(String(client.registration_client_uri), {
    method,
    headers: {
      authorization: `Bearer ${client.registration_access_token}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
}

/** The same members as in the answer to a registration (RFC 7592 §3), but the status is 200. */
async function readRegistration(response: Response) {
  const { status, headers } = response
  if (status !== 200) throw new Error(`answered ${status}: ${await response.text()}`)
  const asRegistered = new Response(await response.text(), { status: 201, headers })
  return oauth.processDynamicClientRegistrationResponse(asRegistered)
}

async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error) => error,
  )
}
