import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import t from 'tap'
import { type ClientKey, makeKey } from '../support/assertion.ts'
import { isActive } from '../support/flow.ts'
import { APP } from '../support/metadata-documents.ts'
import { Person } from '../support/person.ts'
import { RESOURCE, type TestPostern } from '../support/postern.ts'
import { startWithWebsites, type Websites } from '../support/websites.ts'

const [REDIRECT_URI = ''] = APP.redirect_uris
const JWKS_URI = 'https://app.example/jwks.json'
const insecure = { [oauth.allowInsecureRequests]: true }

/** Makes a client that has this key, and gives its identifier. */
type MakeClient = (postern: TestPostern, websites: Websites, key: ClientKey) => Promise<string>

const KINDS: Record<string, MakeClient> = {
  'that registered its keys': async (postern, _websites, { publicJwk }) =>
    register(postern, { jwks: { keys: [publicJwk] } }),
  'that registered where its keys are': async (postern, websites, { publicJwk }) => {
    websites.pages.set(JWKS_URI, { keys: [publicJwk] })
    return register(postern, { jwks_uri: JWKS_URI })
  },
  'with a metadata document': async (_postern, websites, { publicJwk }) => {
    const keys = { jwks_uri: JWKS_URI, token_endpoint_auth_method: 'private_key_jwt' }
    websites.pages.set(JWKS_URI, { keys: [publicJwk] })
    websites.pages.set(APP.client_id, { ...APP, ...keys })
    return APP.client_id
  },
}

async function register(postern: TestPostern, keys: object): Promise<string> {
  const metadata = { redirect_uris: [REDIRECT_URI], token_endpoint_auth_method: 'private_key_jwt', ...keys }
  const response = await oauth.dynamicClientRegistrationRequest(await discover(postern), metadata, insecure)
  return (await oauth.processDynamicClientRegistrationResponse(response)).client_id
}

async function discover(postern: TestPostern): Promise<oauth.AuthorizationServer> {
  const issuer = new URL(postern.issuer)
  return oauth.processDiscoveryResponse(
    issuer,
    await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure }),
  )
}

for (const [kind, makeClient] of Object.entries(KINDS)) {
  t.test(`oauth4webapi: a client ${kind} pushes, redeems, refreshes and revokes`, async (t) => {
    const { postern, websites } = await startWithWebsites(t)
    const key = await makeKey('PS256')
    const client: oauth.Client = { client_id: await makeClient(postern, websites, key) }
    const proof = oauth.PrivateKeyJwt({ key: key.privateKey, kid: key.publicJwk.kid as string })
    const as = await discover(postern)
    t.ok(as.token_endpoint_auth_methods_supported?.includes('private_key_jwt'))
    t.ok(as.token_endpoint_auth_signing_alg_values_supported?.includes('PS256'))

    const verifier = oauth.generateRandomCodeVerifier()
    const parameters = {
      response_type: 'code',
      redirect_uri: REDIRECT_URI,
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      resource: RESOURCE,
    }
    const pushed = await oauth.pushedAuthorizationRequest(as, client, proof, parameters, insecure)
    const { request_uri } = await oauth.processPushedAuthorizationResponse(as, client, pushed)
    const url = `${as.authorization_endpoint}?${new URLSearchParams({ client_id: client.client_id, request_uri })}`
    const callback = oauth.validateAuthResponse(as, client, await new Person().authorize(url))
    const tokens = await oauth.processAuthorizationCodeResponse(
      as,
      client,
      await oauth.authorizationCodeGrantRequest(as, client, proof, callback, REDIRECT_URI, verifier, insecure),
    )
    const refreshed = await oauth.processRefreshTokenResponse(
      as,
      client,
      await oauth.refreshTokenGrantRequest(as, client, proof, tokens.refresh_token ?? '', insecure),
    )
    t.ok(await isActive(postern, refreshed.access_token))
    await oauth.processRevocationResponse(
      await oauth.revocationRequest(as, client, proof, refreshed.access_token, insecure),
    )
    t.notOk(await isActive(postern, refreshed.access_token))
  })

  t.test(`openid-client: a client ${kind} redeems and refreshes`, async (t) => {
    const { postern, websites } = await startWithWebsites(t)
    const key = await makeKey('RS256')
    const clientId = await makeClient(postern, websites, key)
    const proof = openid.PrivateKeyJwt({ key: key.privateKey, kid: key.publicJwk.kid as string })
    const config = await openid.discovery(new URL(postern.issuer), clientId, undefined, proof, {
      algorithm: 'oauth2',
      execute: [openid.allowInsecureRequests],
    })
    const verifier = openid.randomPKCECodeVerifier()
    const url = openid.buildAuthorizationUrl(config, {
      redirect_uri: REDIRECT_URI,
      code_challenge: await openid.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      resource: RESOURCE,
    })
    const callback = await new Person().authorize(url.href)
    const tokens = await openid.authorizationCodeGrant(config, callback, { pkceCodeVerifier: verifier })
    const refreshed = await openid.refreshTokenGrant(config, tokens.refresh_token ?? '')
    t.ok(await isActive(postern, refreshed.access_token))
  })
}

t.test('a public client with a metadata document needs nothing but its address', async (t) => {
  const { postern } = await startWithWebsites(t)
  const config = await openid.discovery(new URL(postern.issuer), APP.client_id, undefined, openid.None(), {
    algorithm: 'oauth2',
    execute: [openid.allowInsecureRequests],
  })
  t.equal(config.serverMetadata().client_id_metadata_document_supported, true)
  const verifier = openid.randomPKCECodeVerifier()
  const url = openid.buildAuthorizationUrl(config, {
    redirect_uri: REDIRECT_URI,
    code_challenge: await openid.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    resource: RESOURCE,
  })
  const callback = await new Person().authorize(url.href)
  const tokens = await openid.authorizationCodeGrant(config, callback, { pkceCodeVerifier: verifier })
  t.ok(await isActive(postern, tokens.access_token))
})
