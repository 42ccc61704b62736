import type { NewIdentityProvider } from '../../src/store/identity-provider.ts'

/** The settings of a provider that lets everybody in, and has no secret of ours; with what differs. */
export function identityProvider(changes: Partial<NewIdentityProvider> = {}): NewIdentityProvider {
  return {
    id: 'company',
    name: 'Company',
    kind: 'openid_connect',
    issuer: 'https://company.example',
    internal_origin: null,
    client_id: 'postern',
    client_secret: null,
    sealed_with: null,
    scope: ['openid'],
    authorization_parameters: {},
    username_claim: 'preferred_username',
    trusts_email: false,
    creates_users: true,
    allowed_domains: null,
    required_claims: [],
    keeps_tokens: false,
    ...changes,
  }
}
