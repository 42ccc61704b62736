import { createHash } from 'node:crypto'
import {
  CHATGPT as CHATGPT_DOCUMENT,
  CLAUDE_CODE as CLAUDE_CODE_DOCUMENT,
  CLAUDE as CLAUDE_DOCUMENT,
  CODEX as CODEX_DOCUMENT,
  GOOSE as GOOSE_DOCUMENT,
  type MetadataDocument,
  VS_CODE as VS_CODE_DOCUMENT,
} from './metadata-documents.ts'

/**
 * What shipping MCP clients send, as of 2026-11: from their sources where these are public, otherwise from what
 * servers have seen. Clients change; when one is looked at again, change its date with it.
 */
export interface Connector {
  name: string
  /** when its habits were last looked at */
  seen: string
  /** how it finds out that a token is needed */
  probe: 'POST' | 'HEAD'
  /** the `resource` that it demands of the MCP server's metadata; others take what the address begins with */
  demandedResource?: (url: string) => string
  /** where it looks for the metadata of an issuer, in order */
  discovery: (issuer: URL) => string[]
  /** the metadata document that it prefers to a registration, where the server says that it takes documents */
  document?: MetadataDocument
  /** its registration request */
  registration: (facts: Facts) => { redirect_uris: string[] } & Record<string, unknown>
  /** where it wants the browser to come back: native ones take a free port each time */
  redirectUri: (facts: Facts) => string
  /** parameters of the authorization request beside those that all send; an empty text is sent as such */
  authorize: (facts: Facts) => Record<string, string>
  /** how it authenticates when it has registered: `basic` without percent-encoding, as most do */
  authentication: 'none' | 'basic' | 'post'
  /** parameters of the token request, and of the refresh request, beside those that all send */
  redeem: (facts: Facts) => Record<string, string>
  refresh: (facts: Facts) => Record<string, string>
  /** the Origin of a client that is a web page, whose browser asks before it sends */
  origin?: string
}

/** What a connector knows when it sends a request. */
export interface Facts {
  /** the MCP server's address, as the person typed it */
  url: string
  /** `scope` of the MCP server's challenge */
  challengedScope: string
  /** `scopes_supported` of the authorization server */
  scopes: string[]
  grantTypes: string[]
  /** a free port of this computer */
  port: number
}

const GRANTS = { grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'] }

/** RFC 8414 first, then OpenID Connect: the MCP specification's order, and that of the official SDKs. */
function asSpecified({ origin, pathname }: URL): string[] {
  const path = pathname === '/' ? '' : pathname
  if (path === '') {
    return [`${origin}/.well-known/oauth-authorization-server`, `${origin}/.well-known/openid-configuration`]
  }
  return [
    `${origin}/.well-known/oauth-authorization-server${path}`,
    `${origin}/.well-known/openid-configuration${path}`,
    `${origin}${path}/.well-known/openid-configuration`,
  ]
}

/** The same, and the root at last. */
function rootLast(issuer: URL): string[] {
  const { origin } = issuer
  const root = [`${origin}/.well-known/oauth-authorization-server`, `${origin}/.well-known/openid-configuration`]
  return [...new Set([...asSpecified(issuer), ...root])]
}

/** Dify: both documents at the root first, the one that RFC 8414 demands last. */
function rootFirst(issuer: URL): string[] {
  const { origin, pathname } = issuer
  const root = [`${origin}/.well-known/oauth-authorization-server`, `${origin}/.well-known/openid-configuration`]
  if (pathname === '/') return root
  return [
    ...root,
    `${origin}/.well-known/openid-configuration${pathname}`,
    `${origin}${pathname}/.well-known/openid-configuration`,
    `${origin}/.well-known/oauth-authorization-server${pathname}`,
  ]
}

const resource = ({ url }: Facts) => ({ resource: url })
const nothing = () => ({})

export const CLAUDE_AI: Connector = {
  name: 'Claude.ai',
  seen: '2026-11',
  probe: 'POST',
  discovery: asSpecified,
  registration: ({ challengedScope }) => ({
    client_name: 'Claude',
    redirect_uris: ['https://claude.ai/api/mcp/auth_callback'],
    ...GRANTS,
    token_endpoint_auth_method: 'client_secret_post',
    scope: challengedScope,
  }),
  redirectUri: () => 'https://claude.ai/api/mcp/auth_callback',
  authorize: ({ challengedScope, url }) => ({ scope: challengedScope, resource: url, state: 'Jm-4tR0u_7Zk' }),
  authentication: 'post',
  redeem: resource,
  refresh: resource,
}

export const CLAUDE_CODE: Connector = {
  name: 'Claude Code',
  seen: '2026-11',
  probe: 'POST',
  discovery: asSpecified,
  registration: ({ port, scopes }) => ({
    client_name: 'Claude Code (notes)',
    redirect_uris: [`http://localhost:${port}/callback`],
    ...GRANTS,
    token_endpoint_auth_method: 'none',
    application_type: 'native',
    client_uri: 'https://claude.com/claude-code',
    scope: scopes.join(' '),
  }),
  redirectUri: ({ port }) => `http://localhost:${port}/callback`,
  authorize: ({ scopes, url }) => ({
    scope: [...scopes, 'offline_access'].join(' '), // beyond its registration
    prompt: 'consent',
    resource: `${url}/`,
    state: 'vXk2nQ',
  }),
  authentication: 'none',
  redeem: ({ url }) => ({ resource: `${url}/` }),
  refresh: ({ url }) => ({ resource: `${url}/` }), // and no scope
}

export const CHATGPT: Connector = {
  name: 'ChatGPT',
  seen: '2026-11',
  probe: 'POST',
  discovery: asSpecified,
  registration: () => ({
    client_name: 'ChatGPT',
    redirect_uris: ['https://chatgpt.com/connector_platform_oauth_redirect'], // where iss is advertised
    ...GRANTS,
    token_endpoint_auth_method: 'none',
  }),
  redirectUri: () => 'https://chatgpt.com/connector_platform_oauth_redirect',
  authorize: ({ url }) => ({ scope: '', resource: url, state: `oauth_s_${'a1'.repeat(400)}` }),
  authentication: 'none',
  redeem: resource,
  refresh: ({ url }) => ({ scope: '', resource: url }),
}

export const CODEX_CLI: Connector = {
  name: 'Codex CLI',
  seen: '2026-11',
  probe: 'POST',
  discovery: rootLast,
  registration: ({ port, url, challengedScope }) => ({
    client_name: 'Codex',
    redirect_uris: [`http://127.0.0.1:${port}/callback/${codexId(url)}`],
    ...GRANTS,
    token_endpoint_auth_method: 'none',
    application_type: 'native',
    scope: challengedScope,
  }),
  redirectUri: ({ port, url }) => `http://127.0.0.1:${port}/callback/${codexId(url)}`,
  authorize: ({ challengedScope, url }) => ({ scope: challengedScope, resource: url, state: 'L9-bW_1' }),
  authentication: 'none',
  redeem: resource,
  refresh: resource,
}

/** VS Code at home: it registers four addresses, and comes back to loopback at a port of the moment. */
export const VS_CODE: Connector = {
  name: 'VS Code',
  seen: '2026-11',
  probe: 'POST',
  discovery: asSpecified,
  registration: ({ scopes, grantTypes }) => ({
    client_name: 'Visual Studio Code',
    client_uri: 'https://code.visualstudio.com',
    grant_types: grantTypes.filter((grant) => VS_CODE_GRANTS.includes(grant)),
    response_types: ['code'],
    redirect_uris: [
      'https://insiders.vscode.dev/redirect',
      'https://vscode.dev/redirect',
      'http://127.0.0.1/',
      'http://127.0.0.1:33418/',
    ],
    scope: scopes.join(' '),
    token_endpoint_auth_method: 'none',
    application_type: 'native',
  }),
  redirectUri: ({ port }) => `http://127.0.0.1:${port}/`,
  authorize: ({ scopes, url }) => ({ scope: scopes.join(' '), resource: url, state: 'pd+8Xw/2kQv+Tz/9mB7cYg==' }),
  authentication: 'none',
  redeem: resource,
  refresh: resource,
}

const VS_CODE_GRANTS = ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code']

/** VS Code in the web, where no scopes are known to it. */
export const VS_CODE_WEB: Connector = {
  ...VS_CODE,
  name: 'VS Code for the Web',
  registration: (facts) => ({ ...VS_CODE.registration({ ...facts, scopes: [] }), scope: '' }),
  redirectUri: () => 'https://vscode.dev/redirect',
  authorize: ({ url }) => ({
    scope: '',
    resource: url,
    state: 'https://vscode.dev/extension-auth-callback?state=pd%2B8Xw%3D%3D&windowId=1',
  }),
}

export const CURSOR: Connector = {
  name: 'Cursor',
  seen: '2026-11',
  probe: 'POST',
  discovery: asSpecified,
  registration: ({ challengedScope }) => ({
    client_name: 'Cursor',
    redirect_uris: [
      'cursor://anysphere.cursor-mcp/oauth/callback',
      'https://www.cursor.com/agents/mcp/oauth/callback',
      'http://localhost:8787/callback',
    ],
    ...GRANTS,
    token_endpoint_auth_method: 'none',
    application_type: 'web',
    scope: challengedScope,
  }),
  redirectUri: () => 'cursor://anysphere.cursor-mcp/oauth/callback',
  authorize: ({ challengedScope, url }) => ({
    scope: challengedScope,
    resource: url,
    state: '{"id":"notes","v":"%20 é"}',
  }),
  authentication: 'none',
  redeem: resource,
  refresh: resource,
}

export const MCP_REMOTE: Connector = {
  name: 'mcp-remote',
  seen: '2026-11',
  probe: 'POST',
  discovery: asSpecified,
  registration: ({ port, scopes }) => ({
    client_name: 'MCP CLI Client',
    redirect_uris: [`http://localhost:${port}/oauth/callback`],
    ...GRANTS,
    token_endpoint_auth_method: 'none',
    client_uri: 'https://github.com/modelcontextprotocol/mcp-cli',
    software_id: '2e6dc280-f3c3-4e01-99a7-8181dbd1d23d',
    software_version: '0.1.38',
    scope: scopes.length === 0 ? 'openid email profile' : scopes.join(' '),
  }),
  redirectUri: ({ port }) => `http://localhost:${port}/oauth/callback`,
  authorize: ({ scopes, url }) => ({
    scope: scopes.length === 0 ? 'openid email profile' : scopes.join(' '),
    resource: url,
    state: '5f0e1c3a-8a52-4f6d-9a57-0f1f1c9d2b11',
  }),
  authentication: 'none',
  redeem: resource,
  refresh: resource,
}

export const MCP_INSPECTOR: Connector = {
  name: 'MCP Inspector',
  seen: '2026-11',
  probe: 'POST',
  discovery: asSpecified,
  registration: () => ({
    client_name: 'MCP Inspector',
    client_uri: 'https://github.com/modelcontextprotocol/inspector',
    redirect_uris: ['http://localhost:6274/oauth/callback', 'http://127.0.0.1:6276/oauth/callback'],
    ...GRANTS,
    token_endpoint_auth_method: 'none',
    scope: '',
  }),
  redirectUri: () => 'http://localhost:6274/oauth/callback',
  authorize: resource, // no scope, no state
  authentication: 'none',
  redeem: resource,
  refresh: resource,
  origin: 'http://localhost:6274',
}

export const GEMINI_CLI: Connector = {
  name: 'Gemini CLI',
  seen: '2026-11',
  probe: 'HEAD',
  demandedResource: (url) => new URL(url).href, // to the letter, with the slash of a root
  discovery: rootLast,
  registration: ({ port }) => ({
    client_name: 'Gemini CLI MCP Client',
    redirect_uris: [`http://localhost:${port}/oauth/callback`],
    ...GRANTS,
    token_endpoint_auth_method: 'none',
    scope: '',
  }),
  redirectUri: ({ port }) => `http://localhost:${port}/oauth/callback`,
  authorize: ({ scopes, url }) => ({ scope: scopes.join(' '), resource: new URL(url).href, state: 'q6Yb-0_xFf' }),
  authentication: 'none',
  redeem: ({ url }) => ({ resource: new URL(url).href }),
  refresh: ({ scopes, url }) => ({ scope: scopes.join(' '), resource: new URL(url).href }),
}

export const DIFY: Connector = {
  name: 'Dify',
  seen: '2026-11',
  probe: 'POST',
  discovery: rootFirst,
  registration: () => ({
    client_name: 'Dify',
    redirect_uris: ['https://dify.example/console/api/mcp/oauth/callback'],
    ...GRANTS,
    token_endpoint_auth_method: 'none',
    client_uri: 'https://github.com/langgenius/dify',
  }),
  redirectUri: () => 'https://dify.example/console/api/mcp/oauth/callback',
  authorize: ({ challengedScope }) => ({ scope: challengedScope, state: 'kT5yPz2mVn_8' }), // no resource, ever
  authentication: 'none',
  redeem: nothing,
  refresh: nothing,
}

/** Dify where it names no method: the secret that it then gets travels in the body. */
export const DIFY_WITH_SECRET: Connector = {
  ...DIFY,
  name: 'Dify with a secret',
  registration: (facts) => ({ ...DIFY.registration(facts), token_endpoint_auth_method: undefined }),
  authentication: 'post',
}

export const LIBRE_CHAT: Connector = {
  name: 'LibreChat',
  seen: '2026-11',
  probe: 'POST',
  discovery: asSpecified,
  registration: ({ scopes }) => ({
    client_name: 'LibreChat MCP Client',
    redirect_uris: ['https://chat.example/api/mcp/notes/oauth/callback'],
    ...GRANTS,
    token_endpoint_auth_method: 'client_secret_basic', // the first with a secret in the server's list
    logo_uri: undefined,
    scope: scopes.join(' '),
  }),
  redirectUri: () => 'https://chat.example/api/mcp/notes/oauth/callback',
  authorize: ({ scopes, url }) => ({ scope: scopes.join(' '), resource: url, state: 'user:notes:Zm9v' }),
  authentication: 'basic',
  redeem: resource,
  refresh: ({ scopes }) => ({ scope: scopes.join(' ') }),
}

export const GOOSE: Connector = {
  name: 'Goose',
  seen: '2026-11',
  probe: 'POST',
  discovery: rootLast,
  registration: ({ port, challengedScope }) => ({
    client_name: 'goose',
    redirect_uris: [`http://127.0.0.1:${port}/oauth_callback`],
    ...GRANTS,
    token_endpoint_auth_method: 'none',
    application_type: 'native',
    scope: challengedScope,
  }),
  redirectUri: ({ port }) => `http://127.0.0.1:${port}/oauth_callback`,
  authorize: ({ challengedScope, url }) => ({ scope: challengedScope, resource: url, state: 'B3x_Qe' }),
  authentication: 'none',
  redeem: resource,
  refresh: ({ challengedScope, url }) => ({ scope: `${challengedScope} offline_access`, resource: url }),
}

export const CONNECTORS: Connector[] = [
  CLAUDE_AI,
  CLAUDE_CODE,
  CHATGPT,
  CODEX_CLI,
  VS_CODE,
  VS_CODE_WEB,
  CURSOR,
  MCP_REMOTE,
  MCP_INSPECTOR,
  GEMINI_CLI,
  DIFY,
  DIFY_WITH_SECRET,
  LIBRE_CHAT,
  GOOSE,
]

/** The same with the metadata documents that they publish, which some of them prefer by now. */
export const CLAUDE_AI_BY_DOCUMENT: Connector = {
  ...CLAUDE_AI,
  name: 'Claude.ai by its document',
  document: CLAUDE_DOCUMENT,
}

export const CLAUDE_CODE_BY_DOCUMENT: Connector = {
  ...CLAUDE_CODE,
  name: 'Claude Code by its document',
  document: CLAUDE_CODE_DOCUMENT,
}

/** With a key of its own: it proves itself to the token endpoint's address. */
export const CHATGPT_BY_DOCUMENT: Connector = {
  ...CHATGPT,
  name: 'ChatGPT by its document',
  document: CHATGPT_DOCUMENT,
  redirectUri: () => 'https://chatgpt.com/connector/oauth/7f3a9c1e',
}

/** Its callback is the same for all MCP servers, since a document can't hold them all. */
export const CODEX_CLI_BY_DOCUMENT: Connector = {
  ...CODEX_CLI,
  name: 'Codex CLI by its document',
  document: CODEX_DOCUMENT,
  redirectUri: ({ port }) => `http://127.0.0.1:${port}/callback`,
}

export const VS_CODE_BY_DOCUMENT: Connector = {
  ...VS_CODE,
  name: 'VS Code by its document',
  document: VS_CODE_DOCUMENT,
}

export const GOOSE_BY_DOCUMENT: Connector = {
  ...GOOSE,
  name: 'Goose by its document',
  document: GOOSE_DOCUMENT,
}

export const CONNECTORS_BY_DOCUMENT: Connector[] = [
  CLAUDE_AI_BY_DOCUMENT,
  CLAUDE_CODE_BY_DOCUMENT,
  CHATGPT_BY_DOCUMENT,
  CODEX_CLI_BY_DOCUMENT,
  VS_CODE_BY_DOCUMENT,
  GOOSE_BY_DOCUMENT,
]

/** The part of Codex's callback that depends on the MCP server. */
function codexId(url: string): string {
  return createHash('sha256').update(url).digest().subarray(0, 9).toString('base64url')
}
