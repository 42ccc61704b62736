import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import t from 'tap'
import { introspect } from '../support/flow.ts'
import { Person } from '../support/person.ts'
import { addClient, addResource, RESOURCE, startTestPostern } from '../support/postern.ts'

const REDIRECT_URI = 'https://app.example/callback'
const insecure = { [oauth.allowInsecureRequests]: true }

t.test('oauth4webapi gets bound tokens, starting without a nonce, and refreshes them (RFC 9449)', async (t) => {
  const postern = await startTestPostern(t)
  const { client_id } = await addClient(postern, { redirectUris: [REDIRECT_URI], dpopBoundAccessTokens: true })
  const issuer = new URL(postern.issuer)
  const discovery = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure })
  const as = await oauth.processDiscoveryResponse(issuer, discovery)
  t.ok(as.dpop_signing_alg_values_supported?.includes('ES256'))

  const client: oauth.Client = { client_id, token_endpoint_auth_method: 'none' }
  const keyPair = await oauth.generateKeyPair('ES256')
  const DPoP = oauth.DPoP(client, keyPair)
  const jkt = await DPoP.calculateThumbprint()
  const verifier = oauth.generateRandomCodeVerifier()
  let demands = 0
  const retrying = async <T>(attempt: () => Promise<T>): Promise<T> => {
    try {
      return await attempt()
    } catch (error) {
      if (!oauth.isDPoPNonceError(error)) throw error
      demands += 1
      return attempt()
    }
  }
  const options = { DPoP, ...insecure }

  const parameters = {
    response_type: 'code',
    redirect_uri: REDIRECT_URI,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    resource: RESOURCE,
  }
  const { request_uri } = await retrying(async () => {
    const response = await oauth.pushedAuthorizationRequest(as, client, oauth.None(), parameters, options)
    return oauth.processPushedAuthorizationResponse(as, client, response)
  })
  t.equal(demands, 1, 'asked for a nonce once')
  const url = `${as.authorization_endpoint}?${new URLSearchParams({ client_id, request_uri })}`
  const callback = oauth.validateAuthResponse(as, client, await new Person().authorize(url))

  const tokens = await retrying(async () => {
    const asked = [as, client, oauth.None(), callback, REDIRECT_URI, verifier, options] as const
    return oauth.processAuthorizationCodeResponse(as, client, await oauth.authorizationCodeGrantRequest(...asked))
  })
  t.equal(tokens.token_type, 'dpop')
  t.match(await introspect(postern, tokens.access_token), { token_type: 'DPoP', cnf: { jkt } })

  const refreshed = await retrying(async () => {
    const asked = [as, client, oauth.None(), tokens.refresh_token ?? '', options] as const
    return oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(...asked))
  })
  t.match(await introspect(postern, refreshed.access_token), { token_type: 'DPoP', cnf: { jkt } })
  t.equal(demands, 1, 'each answer brought a good nonce')
})

t.test('a resource server checks a bound JWT and its proof: key, address, method and ath (RFC 9449 §7)', async (t) => {
  const postern = await startTestPostern(t)
  const resource = 'https://jwt.example.com/mcp'
  await addResource(postern, resource, [{ name: 'read', description: 'Read' }], 'jwt')
  const { client_id } = await addClient(postern, { redirectUris: [REDIRECT_URI] })
  const execute = [openid.allowInsecureRequests]
  const config = await openid.discovery(new URL(postern.issuer), client_id, undefined, openid.None(), {
    algorithm: 'oauth2',
    execute,
  })
  const as = config.serverMetadata()
  const DPoP = openid.getDPoPHandle(config, await openid.randomDPoPKeyPair())
  const tokens = await authorize(config, DPoP, resource)
  const refreshed = await openid.refreshTokenGrant(config, tokens.refresh_token ?? '', undefined, { DPoP })

  /** What arrives at the resource server. */
  const requestWith = async (token: string, handle: oauth.DPoPHandle, method = 'GET', url = resource) => {
    const sent: Request[] = []
    const customFetch = async (address: string, init: RequestInit) => {
      sent.push(new Request(address, init))
      return new Response()
    }
    const headers = new Headers()
    const options = { DPoP: handle, [oauth.customFetch]: customFetch as never }
    await oauth.protectedResourceRequest(token, method, new URL(url), headers, null, options)
    return sent[0] as Request
  }
  const check = (request: Request) =>
    oauth.validateJwtAccessToken(as, request, resource, { requireDPoP: true, ...insecure })

  const right = await requestWith(refreshed.access_token, DPoP)
  t.match(await check(right), { cnf: { jkt: await DPoP.calculateThumbprint() }, client_id })
  const changed = (changes: Record<string, string>) =>
    new Request(resource, { headers: { ...Object.fromEntries(right.headers), ...changes } })
  const proofFor = async (...asked: Parameters<typeof requestWith>) => ({
    dpop: (await requestWith(...asked)).headers.get('dpop') ?? '',
  })
  const thief = oauth.DPoP({}, await oauth.generateKeyPair('ES256'))
  const cases = {
    'as a bearer token': changed({ authorization: `Bearer ${refreshed.access_token}` }),
    'with a proof for another token (ath)': changed(await proofFor(tokens.access_token, DPoP)),
    'with a proof for another address': changed(await proofFor(refreshed.access_token, DPoP, 'GET', `${resource}/x`)),
    'with a proof for another method': changed(await proofFor(refreshed.access_token, DPoP, 'POST')),
    'with the key of a thief': await requestWith(refreshed.access_token, thief),
  }
  for (const [name, request] of Object.entries(cases)) await t.rejects(check(request), name)
})

for (const algorithm of ['ES256', 'PS256', 'RS256', 'Ed25519']) {
  t.test(`openid-client gets and refreshes tokens that are bound with ${algorithm} (RFC 9449)`, async (t) => {
    const postern = await startTestPostern(t)
    const config = await openid.dynamicClientRegistration(
      new URL(postern.issuer),
      { redirect_uris: [REDIRECT_URI], dpop_bound_access_tokens: true },
      undefined,
      { algorithm: 'oauth2', execute: [openid.allowInsecureRequests] },
    )
    t.equal(config.clientMetadata().dpop_bound_access_tokens, true)
    const DPoP = openid.getDPoPHandle(config, await openid.randomDPoPKeyPair(algorithm))
    const jkt = await DPoP.calculateThumbprint()
    const tokens = await authorize(config, DPoP, RESOURCE)
    t.equal(tokens.token_type, 'dpop')
    t.match(await introspect(postern, tokens.access_token), { token_type: 'DPoP', cnf: { jkt } })
    const refreshed = await openid.refreshTokenGrant(config, tokens.refresh_token ?? '', undefined, { DPoP })
    t.match(await introspect(postern, refreshed.access_token), { token_type: 'DPoP', cnf: { jkt } })
    const bare = openid.refreshTokenGrant(config, refreshed.refresh_token ?? '')
    t.match(await bare.catch((error) => error), { error: 'invalid_dpop_proof' })
  })
}

/** A whole flow of openid-client, the code bound to the key. */
async function authorize(config: openid.Configuration, DPoP: openid.DPoPHandle, resource: string) {
  const verifier = openid.randomPKCECodeVerifier()
  const url = openid.buildAuthorizationUrl(config, {
    redirect_uri: REDIRECT_URI,
    code_challenge: await openid.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    resource,
    dpop_jkt: await DPoP.calculateThumbprint(),
  })
  const callback = await new Person().authorize(url.href)
  return openid.authorizationCodeGrant(config, callback, { pkceCodeVerifier: verifier }, undefined, { DPoP })
}
