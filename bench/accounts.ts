/** Who is known to every server that the bench compares: the same names and secrets everywhere. */

/** A caller that authenticates itself with a secret (HTTP Basic). */
export interface Confidential {
  id: string
  secret: string
}

export const RESOURCE_SERVER: Confidential = {
  id: '5b0c2a1e-8d3f-4c6a-9e57-0f4d2b7a9c31',
  secret: 'resource-server-secret-of-the-bench-0123456789',
}
export const RESOURCE_URI = 'https://mcp.example/mcp'
export const MACHINE: Confidential = { id: 'machine', secret: 'machine-client-secret-of-the-bench-0123456789' }
export const APPLICATION = 'application' // a public client
export const REDIRECT_URI = 'https://app.example/callback'
export const PERSON = {
  id: 'c2d1f0a9-3b47-4e8c-a6d5-71e09b8f2c64',
  username: 'alice',
  password: 'correct horse battery',
}
export const SCOPE = 'read'

/** The session cookie of a server that has no sign-in of its own. */
export const SESSION = 'session-of-the-bench-0123456789abcdef0123456789'
