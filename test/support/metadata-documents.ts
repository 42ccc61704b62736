/**
 * Metadata documents of connectors, as of November 2026, after what they publish at these addresses. Members that
 * Postern doesn't read are left in where the originals have some like them.
 */
export interface MetadataDocument {
  client_id: string
  client_name: string
  redirect_uris: string[]
  [member: string]: unknown
}

export const CLAUDE: MetadataDocument = {
  client_id: 'https://claude.ai/oauth/mcp-oauth-client-metadata',
  client_name: 'Claude',
  client_uri: 'https://claude.ai',
  redirect_uris: ['https://claude.ai/api/mcp/auth_callback', 'https://claude.com/api/mcp/auth_callback'],
  grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:jwt-bearer'],
  response_types: ['code'],
  token_endpoint_auth_method: 'none',
}

/** Any port, but the name localhost. */
export const CLAUDE_CODE: MetadataDocument = {
  client_id: 'https://claude.ai/oauth/claude-code-client-metadata',
  client_name: 'Claude Code',
  client_uri: 'https://claude.ai',
  redirect_uris: ['http://localhost/callback', 'http://127.0.0.1/callback'],
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  token_endpoint_auth_method: 'none',
}

/** It decides at each request whether it authenticates. */
export const CHATGPT: MetadataDocument = {
  client_id: 'https://chatgpt.com/oauth/7f3a9c1e/client.json?token_endpoint_auth_method=private_key_jwt',
  client_name: 'ChatGPT',
  client_uri: 'https://chatgpt.com',
  redirect_uris: [
    'https://chatgpt.com/connector/oauth/7f3a9c1e',
    'https://chatgpt.com/connector_platform_oauth_redirect',
  ],
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  token_endpoint_auth_method: 'private_key_jwt',
  token_endpoint_auth_methods_supported: ['none', 'private_key_jwt'],
  token_endpoint_auth_signing_alg: 'RS256',
  jwks_uri: 'https://chatgpt.com/oauth/jwks.json',
}

export const CODEX: MetadataDocument = {
  client_id: 'https://chatgpt.com/oauth/codex/client.json',
  client_name: 'Codex',
  client_uri: 'https://chatgpt.com',
  application_type: 'native',
  redirect_uris: ['http://127.0.0.1/callback', 'http://localhost/callback'],
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  token_endpoint_auth_method: 'none',
  token_endpoint_auth_methods_supported: ['none'],
}

/** In one document pages on the web, which hand over to the application, and loopback. */
export const VS_CODE: MetadataDocument = {
  client_id: 'https://vscode.dev/oauth/client-metadata.json',
  client_name: 'Visual Studio Code',
  client_uri: 'https://vscode.dev',
  application_type: 'native',
  redirect_uris: [
    'https://vscode.dev/redirect',
    'https://insiders.vscode.dev/redirect',
    'http://127.0.0.1/',
    'http://127.0.0.1:33418/',
  ],
  grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
  response_types: ['code'],
  token_endpoint_auth_method: 'none',
}

/** Both addresses of loopback, and not the name. */
export const GOOSE: MetadataDocument = {
  client_id: 'https://goose-docs.ai/oauth/client-metadata.json',
  client_name: 'goose',
  logo_uri: 'https://goose-docs.ai/img/logo_light.png',
  redirect_uris: ['http://127.0.0.1/oauth_callback', 'http://[::1]/oauth_callback'],
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  token_endpoint_auth_method: 'none',
  code_challenge_methods_supported: ['S256'],
}

/** With the redirect URI that each one really sends. */
export const CONNECTORS: { document: MetadataDocument; redirectUri: string }[] = [
  { document: CLAUDE, redirectUri: 'https://claude.ai/api/mcp/auth_callback' },
  { document: CLAUDE_CODE, redirectUri: 'http://localhost:54321/callback' },
  { document: CHATGPT, redirectUri: 'https://chatgpt.com/connector/oauth/7f3a9c1e' },
  { document: CODEX, redirectUri: 'http://127.0.0.1:45678/callback' },
  { document: VS_CODE, redirectUri: 'http://127.0.0.1:33418/' },
  { document: GOOSE, redirectUri: 'http://127.0.0.1:50123/oauth_callback' },
]

/** A public client of nobody in particular. */
export const APP: MetadataDocument = {
  client_id: 'https://app.example/client.json',
  client_name: 'Notebook',
  redirect_uris: ['https://app.example/callback'],
  token_endpoint_auth_method: 'none',
}
