import type { Kysely } from 'kysely'
import { registerClient } from '../src/clients/register.ts'
import type { Config } from '../src/config.ts'
import { encodeRefreshToken } from '../src/protocol/refresh-token.ts'
import { insertAuthorizationCode, redeemAuthorizationCode } from '../src/store/authorization-code.ts'
import type { Database } from '../src/store/database.ts'
import { insertResource } from '../src/store/resource.ts'
import { insertUser } from '../src/store/user.ts'
import { firstRefreshToken } from '../src/tokens/pair.ts'
import { encodeCredential, hashSecret, issueCredential, randomId } from '../src/tokens/secret.ts'

const CALLBACK = 'https://app.example/callback'

/** What a bench needs: a resource server, a client, and token families that are ready to be refreshed. */
export async function seed(db: Kysely<Database>, config: Config, count: number) {
  const userId = randomId()
  const user = { id: userId, username: 'bench', usernameKey: 'bench', passwordHash: '', isAdministrator: false }
  await insertUser(db, user)
  const resourceServer = { id: randomId(), secret: issueCredential('resourceSecret') }
  await insertResource(db, {
    id: resourceServer.id,
    uri: 'https://mcp.example/mcp',
    name: null,
    secretHash: hashSecret(resourceServer.secret),
    scopes: [{ name: 'read', description: 'Read' }],
    tokenFormat: 'opaque',
    isDefault: true,
  })
  const metadata = {
    name: 'Bench',
    redirectUris: [CALLBACK],
    tokenEndpointAuthMethod: 'none' as const,
    grantTypes: ['authorization_code', 'refresh_token'],
    defaultScope: undefined,
    dpopBoundAccessTokens: false,
    description: {},
  }
  const bounds = { boundScope: null, resourceIds: null }
  const client = await registerClient({ config, db }, metadata, { registration: 'operator', bounds })
  const families = []
  for (let n = 0; n < count; n += 1)
    families.push(await startFamily(db, config, client.client_id, userId, resourceServer.id))
  return { resourceServer, client: client.client_id, families }
}

async function startFamily(db: Kysely<Database>, config: Config, clientId: string, userId: string, resourceId: string) {
  const proof = {
    codeHash: hashSecret(randomId()),
    clientId,
    redirectUri: CALLBACK,
    codeChallenge: '',
    dpopJkt: undefined,
    approvedFrom: '127.0.0.1',
  }
  await insertAuthorizationCode(db, { ...proof, userId, resourceId, scope: ['read'] }, 60)
  const refreshToken = firstRefreshToken()
  const accessToken = issueCredential('accessToken')
  await redeemAuthorizationCode(
    db,
    { ...proof, resourceCandidates: undefined },
    {
      ...config,
      familyId: randomId(),
      refreshToken: { lineageHash: hashSecret(refreshToken.lineage), secretHash: hashSecret(refreshToken.secret) },
      accessTokenHash: hashSecret(accessToken),
      dpopJkt: undefined,
      bindsRefreshToken: false,
    },
  )
  return { accessToken, refreshToken: encodeCredential('refreshToken', encodeRefreshToken(refreshToken)) }
}
