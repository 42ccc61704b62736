/**
 * The metadata lists exactly what works (RFC 8414 §2): every member is walked, each entry of a list is used, and
 * what the list leaves out is refused. A member that nobody walks fails the first test.
 */
import { randomUUID } from 'node:crypto'
import { createLocalJWKSet, type JSONWebKeySet, jwtVerify, SignJWT } from 'jose'
import t, { type Test } from 'tap'
import { addMachine, obtainMachineToken } from '../support/access-token.ts'
import {
  ACCEPTED,
  asAssertion,
  assertionBy,
  judgedAs,
  makeKey,
  REFUSED,
  registerWithKeys,
} from '../support/assertion.ts'
import { basic } from '../support/credentials.ts'
import { createProofKey, proofHeader } from '../support/dpop.ts'
import { authorizeUrl, introspect, obtainTokens, pkce, post, redeem } from '../support/flow.ts'
import { APP } from '../support/metadata-documents.ts'
import { Person, textOf } from '../support/person.ts'
import { addClient, RESOURCE } from '../support/postern.ts'
import { startWithWebsites } from '../support/websites.ts'

type Show = (t: Test, value: unknown) => Promise<void>

const CALLBACK = 'https://app.example/callback'
const DEVICE_CODE = 'urn:ietf:params:oauth:grant-type:device_code'

const { postern, websites } = await startWithWebsites(t)
const document = await fetch(`${postern.issuer}/.well-known/oauth-authorization-server`)
const metadata = (await document.json()) as Record<string, unknown>
const app = await addClient(postern, { redirectUris: [CALLBACK] })
const device = await addClient(postern, { redirectUris: [], grantTypes: [DEVICE_CODE] })
const machine = await addMachine(postern)
const { id, secret } = postern.resourceServer

/** Posts a form to the endpoint that a member names. */
async function send(member: string, fields: Record<string, string>, headers: Record<string, string> = {}) {
  const response = await fetch(String(metadata[member]), { method: 'POST', body: new URLSearchParams(fields), headers })
  const text = await response.text()
  return {
    status: response.status,
    headers: response.headers,
    text,
    body: text.startsWith('{') ? JSON.parse(text) : {},
  }
}

/** What the client is told at the end of an authorization request. */
async function answerTo(parameters: Record<string, string>, person = new Person()): Promise<Record<string, string>> {
  const answer = await person.authorize(authorizeUrl(postern, app, pkce().challenge, parameters))
  return Object.fromEntries(answer.searchParams)
}

/** Where a person who is signed in, and has allowed this before, is sent. */
async function nextFor(prompt: string | undefined, person: Person): Promise<string> {
  const response = await person.request(authorizeUrl(postern, app, pkce().challenge, { prompt }))
  return new URL(response.headers.get('location') ?? '', postern.issuer).pathname
}

async function register(request: object): Promise<Record<string, unknown>> {
  const response = await fetch(String(metadata.registration_endpoint), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ redirect_uris: [CALLBACK], ...request }),
  })
  return { status: response.status, ...((await response.json()) as object) }
}

/** What a grant is asked with, and what it answers: each with everything that it needs. */
const GRANTS: Record<string, () => Promise<{ status: number; body: Record<string, unknown> }>> = {
  authorization_code: async () => {
    const { verifier, challenge } = pkce()
    const answer = await new Person().authorize(authorizeUrl(postern, app, challenge))
    return redeem(postern, app, { code: answer.searchParams.get('code') ?? '', verifier })
  },
  refresh_token: async () => {
    const { refresh_token } = await obtainTokens(postern, app)
    return send('token_endpoint', { grant_type: 'refresh_token', refresh_token, client_id: app.client_id })
  },
  client_credentials: async () =>
    send(
      'token_endpoint',
      { grant_type: 'client_credentials' },
      { authorization: basic(machine.client_id, machine.client_secret ?? '') },
    ),
  [DEVICE_CODE]: async () => {
    const { body } = await send('device_authorization_endpoint', { client_id: device.client_id })
    await approveDevice(body.verification_uri_complete)
    const { device_code } = body
    return send('token_endpoint', { grant_type: DEVICE_CODE, device_code, client_id: device.client_id })
  },
}

async function approveDevice(address: string): Promise<void> {
  const person = await signedIn()
  const entered = { address, html: await (await person.request(address)).text() }
  const user_code = new URL(address).searchParams.get('user_code') ?? ''
  const question = { address, html: await (await person.submit(entered, '/device', { user_code })).text() }
  await person.submit(question, '/device/decision', { decision: 'approve' })
}

/** A person who is signed in, and has allowed `app` everything. */
async function signedIn(): Promise<Person> {
  const person = new Person()
  await person.authorize(authorizeUrl(postern, app, pkce().challenge))
  return person
}

/** Authentication of a client, at an endpoint where a good one gets as far as a token that is unknown. */
function showMethods(judge: (fields: Record<string, string>, authorization?: string) => Promise<string>): Show {
  return async (t, methods) => {
    const key = await makeKey()
    for (const method of methods as string[]) {
      const jwks = method === 'private_key_jwt' ? { jwks: { keys: [key.publicJwk] } } : {}
      const client = await register({ token_endpoint_auth_method: method, ...jwks })
      t.equal(client.token_endpoint_auth_method, method)
      const client_id = String(client.client_id)
      const client_secret = String(client.client_secret)
      const good: Record<string, () => Promise<string>> = {
        none: () => judge({ client_id }),
        client_secret_basic: () => judge({}, basic(client_id, client_secret)),
        client_secret_post: () => judge({ client_id, client_secret }),
        private_key_jwt: async () => judge(await assertionBy(postern, client_id, key)),
      }
      t.equal(await good[method]?.(), 'accepted', method)
      const wrong = method === 'none' ? { client_id, client_secret: 'x' } : { client_id }
      t.equal(await judge(wrong), 'refused', `${method}, otherwise`)
    }
    for (const token_endpoint_auth_method of ['client_secret_jwt', 'tls_client_auth', 'self_signed_tls_client_auth']) {
      t.notOk((methods as string[]).includes(token_endpoint_auth_method))
      const refused = await register({ token_endpoint_auth_method, jwks: { keys: [key.publicJwk] } })
      t.match(refused, { status: 400, error: 'invalid_client_metadata' }, token_endpoint_auth_method)
    }
    const shared = await register({ token_endpoint_auth_method: 'client_secret_post' })
    const now = Math.floor(Date.now() / 1000)
    const claims = {
      iss: shared.client_id,
      sub: shared.client_id,
      aud: postern.issuer,
      jti: randomUUID(),
      exp: now + 60,
    }
    const hmac = await new SignJWT(JSON.parse(JSON.stringify(claims)))
      .setProtectedHeader({ alg: 'HS256' })
      .sign(Buffer.from(String(shared.client_secret)))
    t.equal(await judge(asAssertion(hmac)), 'refused', 'client_secret_jwt')
  }
}

const showAlgorithms: Show = async (t, algorithms) => {
  for (const algorithm of algorithms as string[]) {
    const key = await makeKey(algorithm)
    const { client_id } = await registerWithKeys(postern, { jwks: { keys: [key.publicJwk] } })
    t.equal(await judgedAs(postern, await assertionBy(postern, client_id, key)), ACCEPTED, algorithm)
    const { status } = await send('revocation_endpoint', {
      token: 'unknown',
      ...(await assertionBy(postern, client_id, key)),
    })
    t.equal(status, 200, `${algorithm} at revocation`)
  }
  for (const algorithm of ['ES384', 'RS512', 'PS384']) {
    t.notOk((algorithms as string[]).includes(algorithm))
    const key = await makeKey(algorithm)
    const listed = await makeKey('RS256', String(key.publicJwk.kid))
    const { client_id } = await registerWithKeys(postern, { jwks: { keys: [listed.publicJwk] } })
    t.equal(await judgedAs(postern, await assertionBy(postern, client_id, key)), REFUSED, algorithm)
    const pinned = { jwks: { keys: [listed.publicJwk] }, token_endpoint_auth_signing_alg: algorithm }
    t.match(await registerWithKeys(postern, pinned), { status: 400, error: 'invalid_client_metadata' }, algorithm)
  }
}

/** Every member, and what shows that it is true. */
const MEMBERS: Record<string, Show> = {
  issuer: async (t, issuer) => {
    t.equal(issuer, postern.issuer)
    t.match(await introspect(postern, (await obtainTokens(postern, app)).access_token), { iss: issuer })
  },
  authorization_endpoint: async (t, endpoint) => {
    const [address = ''] = authorizeUrl(postern, app, pkce().challenge).split('?')
    t.equal(endpoint, address)
    t.ok((await answerTo({})).code)
  },
  token_endpoint: async (t) => {
    t.match(await GRANTS.client_credentials?.(), { status: 200, body: { token_type: 'Bearer' } })
  },
  registration_endpoint: async (t) => {
    t.match(await register({ token_endpoint_auth_method: 'none' }), { status: 201, client_id: String })
  },
  device_authorization_endpoint: async (t, endpoint) => {
    const answer = await send('device_authorization_endpoint', { client_id: device.client_id })
    t.match(answer, { status: 200, body: { device_code: String, user_code: String } }, String(endpoint))
  },
  pushed_authorization_request_endpoint: async (t) => {
    const link = new URL(authorizeUrl(postern, app, pkce().challenge))
    const { status, body } = await send('pushed_authorization_request_endpoint', Object.fromEntries(link.searchParams))
    t.equal(status, 201)
    link.search = new URLSearchParams({ client_id: app.client_id, request_uri: body.request_uri }).toString()
    t.ok((await new Person().authorize(link.href)).searchParams.get('code'))
  },
  revocation_endpoint: async (t) => {
    const { access_token } = await obtainTokens(postern, app)
    await send('revocation_endpoint', { token: access_token, client_id: app.client_id })
    t.match(await introspect(postern, access_token), { active: false })
  },
  introspection_endpoint: async (t) => {
    const token = await obtainMachineToken(postern, machine)
    const answer = await send('introspection_endpoint', { token }, { authorization: basic(id, secret) })
    t.match(answer, { status: 200, body: { active: true, aud: RESOURCE } })
  },
  jwks_uri: async (t, address) => {
    const { keys } = (await (await fetch(String(address))).json()) as JSONWebKeySet
    t.ok(keys.length > 0)
    const used = keys.map(({ alg }) => alg)
    t.strictSame([...new Set(used)], metadata.introspection_signing_alg_values_supported, 'of the keys that sign')
  },
  scopes_supported: async (t, scopes) => {
    for (const scope of scopes as string[]) t.equal((await obtainTokens(postern, app, { scope })).scope, scope)
    t.match(await answerTo({ scope: 'admin' }), { error: 'invalid_scope' })
  },
  response_types_supported: async (t, types) => {
    for (const response_type of types as string[]) t.ok((await answerTo({ response_type })).code, response_type)
    for (const response_type of ['token', 'id_token', 'code token', 'code id_token', 'none']) {
      t.notOk((types as string[]).includes(response_type))
      t.match(await answerTo({ response_type }), { error: 'unsupported_response_type' }, response_type)
    }
  },
  response_modes_supported: async (t, modes) => {
    for (const response_mode of modes as string[]) t.ok((await answerTo({ response_mode })).code, response_mode)
    for (const response_mode of ['fragment', 'form_post', 'jwt', 'query.jwt']) {
      t.match(await answerTo({ response_mode }), { error: 'invalid_request' }, response_mode)
    }
  },
  grant_types_supported: async (t, grants) => {
    t.strictSame(new Set(grants as string[]), new Set(Object.keys(GRANTS)))
    for (const [grant, ask] of Object.entries(GRANTS)) {
      const { status, body } = await ask()
      t.equal(status, 200, grant)
      t.match(await introspect(postern, String(body.access_token)), { active: true }, grant)
    }
    for (const grant_type of [
      'password',
      'implicit',
      'urn:ietf:params:oauth:grant-type:jwt-bearer',
      'urn:ietf:params:oauth:grant-type:saml2-bearer',
      'urn:ietf:params:oauth:grant-type:token-exchange',
      'urn:openid:params:grant-type:ciba',
    ]) {
      t.notOk((grants as string[]).includes(grant_type))
      const asked = { grant_type, client_id: app.client_id, username: 'alice', password: 'x', assertion: 'x' }
      const answer = await send('token_endpoint', asked)
      t.match(answer, { status: 400, body: { error: 'unsupported_grant_type' } }, grant_type)
    }
  },
  code_challenge_methods_supported: async (t, methods) => {
    for (const code_challenge_method of methods as string[]) t.ok((await answerTo({ code_challenge_method })).code)
    for (const code_challenge_method of ['plain', 's256', 'S512']) {
      t.match(await answerTo({ code_challenge_method }), { error: 'invalid_request' }, code_challenge_method)
    }
  },
  token_endpoint_auth_methods_supported: showMethods(async (fields, authorization) => {
    const asked = { grant_type: 'refresh_token', refresh_token: 'unknown', ...fields }
    const { body } = await send('token_endpoint', asked, authorization === undefined ? {} : { authorization })
    return { invalid_grant: 'accepted', invalid_client: 'refused' }[String(body.error)] ?? String(body.error)
  }),
  token_endpoint_auth_signing_alg_values_supported: showAlgorithms,
  revocation_endpoint_auth_methods_supported: showMethods(async (fields, authorization) => {
    const asked = { token: 'unknown', ...fields }
    const { status } = await send('revocation_endpoint', asked, authorization === undefined ? {} : { authorization })
    return { 200: 'accepted', 401: 'refused' }[status] ?? String(status)
  }),
  revocation_endpoint_auth_signing_alg_values_supported: async (t, algorithms) => {
    t.strictSame(algorithms, metadata.token_endpoint_auth_signing_alg_values_supported, 'shown there, at both')
  },
  introspection_endpoint_auth_methods_supported: async (t, methods) => {
    const token = await obtainMachineToken(postern, machine)
    const presented: Record<string, [Record<string, string>, Record<string, string>]> = {
      client_secret_basic: [{ token }, { authorization: basic(id, secret) }],
      client_secret_post: [{ token, client_id: id, client_secret: secret }, {}],
    }
    t.strictSame(methods, Object.keys(presented))
    for (const [method, [fields, headers]] of Object.entries(presented)) {
      t.match(await send('introspection_endpoint', fields, headers), { status: 200, body: { active: true } }, method)
    }
    const none = await send('introspection_endpoint', { token, client_id: id })
    t.match(none, { status: 401, body: { error: 'invalid_client' } }, 'none')
    const assertion = await assertionBy(postern, id, await makeKey())
    t.match(await send('introspection_endpoint', { token, ...assertion }), { status: 401 }, 'private_key_jwt')
  },
  introspection_signing_alg_values_supported: async (t, algorithms) => {
    const token = await obtainMachineToken(postern, machine)
    const headers = { authorization: basic(id, secret), accept: 'application/token-introspection+jwt' }
    const { text } = await send('introspection_endpoint', { token }, headers)
    const keys = (await (await fetch(String(metadata.jwks_uri))).json()) as JSONWebKeySet
    const { protectedHeader } = await jwtVerify(text, createLocalJWKSet(keys), { issuer: postern.issuer, audience: id })
    t.strictSame(algorithms, [protectedHeader.alg], 'there is one key')
  },
  dpop_signing_alg_values_supported: async (t, algorithms) => {
    const authorization = basic(machine.client_id, machine.client_secret ?? '')
    const ask = async (alg: string) => {
      const proof = await proofHeader(postern, await createProofKey(alg))
      return send('token_endpoint', { grant_type: 'client_credentials' }, { authorization, ...proof })
    }
    for (const alg of algorithms as string[]) t.match(await ask(alg), { body: { token_type: 'DPoP' } }, alg)
    for (const alg of ['ES384', 'RS512', 'PS384']) {
      t.notOk((algorithms as string[]).includes(alg))
      t.match(await ask(alg), { status: 400, body: { error: 'invalid_dpop_proof' } }, alg)
    }
  },
  prompt_values_supported: async (t, values) => {
    const person = await signedIn()
    const expected: Record<string, string> = {
      none: '/callback',
      login: '/login',
      consent: '/consent',
      select_account: '/login',
    }
    t.strictSame(values, Object.keys(expected))
    t.equal(await nextFor(undefined, person), '/callback', 'without it nothing is asked')
    for (const [prompt, path] of Object.entries(expected)) t.equal(await nextFor(prompt, person), path, prompt)
    t.match(await answerTo({ prompt: 'none' }), { error: 'login_required' })
  },
  authorization_response_iss_parameter_supported: async (t, supported) => {
    t.equal((await answerTo({})).iss, supported === true ? postern.issuer : undefined)
  },
  client_id_metadata_document_supported: async (t, supported) => {
    t.equal(supported, true)
    const answer = await new Person().authorize(authorizeUrl(postern, APP, pkce().challenge))
    t.ok(answer.searchParams.get('code'))
    t.strictSame(websites.fetched, [APP.client_id])
  },
}

t.test('every member is walked', async (t) => {
  t.strictSame(Object.keys(metadata).sort(), Object.keys(MEMBERS).sort())
})

for (const [member, show] of Object.entries(MEMBERS)) {
  t.test(`${member}: what it says works, and nothing else`, (t) => show(t, metadata[member]))
}

t.test('legacy requests get nothing but an error, also from a client that says it may have them', async (t) => {
  const legacy = await register({ grant_types: ['implicit', 'password'], response_types: ['token'] })
  t.match(legacy, { status: 400, error: 'invalid_client_metadata' })
  const mixed = await register({
    grant_types: ['authorization_code', 'implicit', 'password'],
    response_types: ['code', 'token'],
    token_endpoint_auth_method: 'none',
  })
  t.match(mixed, { status: 201, grant_types: ['authorization_code'], response_types: ['code'] })
  const client_id = String(mixed.client_id)
  const password = { grant_type: 'password', username: 'alice', password: 'x', client_id }
  t.match((await post(postern, '/token', password)).body, { error: 'unsupported_grant_type' })
  const client = { client_id, redirect_uris: [CALLBACK] }
  const page = await new Person().request(authorizeUrl(postern, client, pkce().challenge, { response_type: 'token' }))
  const location = page.headers.get('location') ?? ''
  t.match(location, 'error=unsupported_response_type', textOf(location))
  t.notMatch(location, 'access_token')
})
