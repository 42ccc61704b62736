// A command-line program for a device without a browser: a person allows the access on their phone or computer
// (RFC 8628). Run it with --help.
//
// What such a program has to do is in three places: `discover` finds the addresses, `showCode` tells the person where
// to go, and `waitForDecision` asks again and again until they have decided.

import { setTimeout as wait } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import * as oauth from 'oauth4webapi'
import { renderUnicodeCompact } from 'uqr'

const USAGE = `Usage: node client.js --client-id ID [options]

Gets an access token for this device: shows a code, which a person enters in a browser anywhere.

  --client-id ID     what \`postern client add\` answered
  --issuer URL       the address of Postern (default: http://localhost:3000)
  --resource URI     the resource server to get access to (default: that of Postern)
  --scope SCOPES     what to ask for, such as "read write" (default: all that is offered)
  --print-token      print the tokens themselves; mind who can see your screen
  -h, --help         show this

It ends with 0 when it has a token, with 1 when it gets none, and with 2 when it was called wrongly.
`

const OPTIONS = /** @type {const} */ ({
  'client-id': { type: 'string' },
  issuer: { type: 'string', default: 'http://localhost:3000' },
  resource: { type: 'string' },
  scope: { type: 'string' },
  'print-token': { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
})

const DEFAULT_INTERVAL = 5 // seconds between two polls, when the server names none (RFC 8628 §3.2)
const SLOWER_BY = 5 // seconds that each slow_down adds, for good (RFC 8628 §3.5)
const LONGEST_INTERVAL = 60 // seconds, however long the server is away
const REQUEST_TIMEOUT = 10_000 // milliseconds

/** What each refusal means to the person at the device. */
const MEANING = {
  access_denied: 'The request was denied: there is no access.',
  expired_token: 'The code has expired before anybody allowed the access. Start again to get a new one.',
  invalid_client: 'The server does not know this client. Is --client-id right?',
  invalid_target: 'The server does not know this resource, or not for this client. Is --resource right?',
  unauthorized_client: 'This client may not use device codes. Add it with --grant, as the README says.',
}

/** A failure that is explained to the person, without a stack. */
class Failure extends Error {}

async function main() {
  const options = readOptions()
  const server = await discover(options)
  const started = await startAuthorization(server, options)
  showCode(started)
  const tokens = await waitForDecision(server, started)
  showTokens(tokens, options)
}

function readOptions() {
  let options
  try {
    options = parseArgs({ options: OPTIONS }).values
  } catch (error) {
    return endWithUsage(error.message)
  }
  if (options.help) {
    process.stdout.write(USAGE)
    process.exit(0)
  }
  if (!options['client-id']) return endWithUsage('--client-id is missing')
  if (!URL.canParse(options.issuer)) return endWithUsage('--issuer is no URL')
  return options
}

function endWithUsage(problem) {
  process.stderr.write(`${problem}\n\n${USAGE}`)
  process.exit(2)
}

/**
 * Reads the server's metadata (RFC 8414), where all its addresses are. The library checks that it speaks for this
 * issuer and no other.
 *
 * @returns all that the requests need
 */
async function discover({ issuer, 'client-id': clientId }) {
  const url = new URL(issuer)
  const loopback = ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname)
  const request = () => ({
    signal: AbortSignal.timeout(REQUEST_TIMEOUT),
    [oauth.allowInsecureRequests]: loopback, // http to this machine alone
  })
  const response = await oauth.discoveryRequest(url, { algorithm: 'oauth2', ...request() })
  const metadata = await oauth.processDiscoveryResponse(url, response)
  if (metadata.device_authorization_endpoint === undefined) {
    throw new Failure(`${issuer} offers no device codes.`)
  }
  return { metadata, client: { client_id: clientId }, authentication: oauth.None(), request }
}

/** Asks for a device code and a user code (RFC 8628 §3.1), for one resource (RFC 8707). */
async function startAuthorization({ metadata, client, authentication, request }, { resource, scope }) {
  const parameters = { ...(resource && { resource }), ...(scope && { scope }) }
  const response = await oauth.deviceAuthorizationRequest(metadata, client, authentication, parameters, request())
  return oauth.processDeviceAuthorizationResponse(metadata, client, response)
}

/** Tells the person where to go. The code is shown with the link, too: they compare it there (RFC 8628 §3.3.1). */
function showCode({ user_code, verification_uri, verification_uri_complete, expires_in }) {
  const link = verification_uri_complete ?? verification_uri
  print(`To allow the access, open this address in a browser, on any device:

  ${verification_uri}

and enter the code:

  ${user_code}

${verification_uri_complete ? 'Or open this link, which has the code in it, or scan its picture:' : 'Or scan the picture of this link:'}

  ${link}

${qrCode(link)}

Waiting for you; the code is good for ${Math.ceil(expires_in / 60)} minutes.`)
}

/** A QR code of half blocks. Where the terminal has colours, light on dark whatever its own colours are. */
function qrCode(text) {
  const lines = renderUnicodeCompact(text, { border: 2 }).split('\n')
  const coloured = process.stdout.hasColors?.() ?? false
  return lines.map((line) => `  ${coloured ? `\x1b[97;40m${line}\x1b[0m` : line}`).join('\n')
}

/**
 * Polls until the person has decided (RFC 8628 §3.4, §3.5). A server that is away for a moment ends nothing: the
 * person may be at it just now. It is asked ever more rarely.
 *
 * @returns the token response
 * @throws when the person denied, or the code has expired
 */
async function waitForDecision({ metadata, client, authentication, request }, { device_code, expires_in, interval }) {
  const expiresAt = Date.now() + expires_in * 1000
  let seconds = interval ?? DEFAULT_INTERVAL
  while (Date.now() < expiresAt) {
    await wait(seconds * 1000)
    try {
      const response = await oauth.deviceCodeGrantRequest(metadata, client, authentication, device_code, request())
      return await oauth.processDeviceCodeResponse(metadata, client, response)
    } catch (error) {
      if (error.error === 'slow_down') seconds += SLOWER_BY
      else if (isAway(error)) seconds = Math.min(seconds * 2, LONGEST_INTERVAL)
      else if (error.error !== 'authorization_pending') throw error
    }
  }
  throw new Failure(MEANING.expired_token)
}

/** Whether the server could not be reached, or could not answer, so that the same request may succeed later. */
function isAway(error) {
  if (error.name === 'TimeoutError') return true
  if (error instanceof TypeError) return error.code === undefined // of fetch; those of the library have a code
  const status = error.status ?? error.cause?.status
  return status === 429 || status >= 500
}

function showTokens({ access_token, refresh_token, scope, expires_in, token_type }, { 'print-token': printToken }) {
  print('\nAllowed. This device has an access token now.\n')
  print(`  scope:    ${scope || 'none'}`)
  print(`  expires:  ${expires_in === undefined ? 'not said' : `in ${Math.round(expires_in / 60)} minutes`}`)
  print(`  refresh:  ${refresh_token === undefined ? 'no; start again then' : 'yes, with a refresh token'}`)
  if (!printToken) return
  print(`\n${JSON.stringify({ token_type, access_token, refresh_token }, null, 2)}`)
}

function print(text) {
  process.stdout.write(`${text}\n`)
}

/** Says in one line what went wrong. */
function explain(error) {
  if (error instanceof Failure) return error.message
  if (error instanceof oauth.ResponseBodyError && !isAway(error)) {
    return MEANING[error.error] ?? `The server refused: ${error.error_description ?? error.error}`
  }
  if (error instanceof oauth.WWWAuthenticateChallengeError) return MEANING.invalid_client // RFC 6749 §5.2
  if (isAway(error)) return 'The server does not answer. Is --issuer right, and does it run?'
  return `The server answered something unexpected: ${error.message}`
}

main().catch((error) => {
  process.stderr.write(`${explain(error)}\n`)
  process.exitCode = 1
})
