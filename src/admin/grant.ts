import type { Config } from '../config.ts'
import { findClient } from '../store/client.ts'
import { type LivingGrant, listGrants } from '../store/grant.ts'
import { revokeTokenFamily } from '../store/token-family.ts'
import { findUser } from '../store/user.ts'
import { isId } from '../tokens/secret.ts'
import { demandClient } from './client.ts'
import { withDatabase } from './database.ts'
import { AdminError, type Answer, instant, shorten, table } from './output.ts'
import { demandKey, demandUser } from './user.ts'

/** Options of `postern grant list`. */
export interface GrantOptions {
  user?: string
  client?: string
}

/** `postern grant list` */
export async function grantList(config: Config, options: GrantOptions): Promise<Answer> {
  const { user, client } = options
  const grants = await withDatabase(config, async (db) => {
    const found = user === undefined ? undefined : demandUser(user, await findUser(db, demandKey(user)))
    if (client !== undefined) demandClient(client, await findClient(db, client))
    return listGrants(db, { userId: found?.id, clientId: client })
  })
  const rows = grants.map((grant) => [
    grant.id,
    grant.username,
    shorten(grant.clientName ?? grant.clientId),
    grant.resource,
    grant.scope.join(' '),
    instant(grant.createdAt),
    instant(grant.lastUsedAt),
  ])
  return {
    json: grants.map(grantJson),
    text: table(
      ['ID', 'USER', 'CLIENT', 'RESOURCE', 'SCOPES', 'CREATED (UTC)', 'LAST USED (UTC)'],
      rows,
      'There is no such grant: people grant access when they connect a client.',
    ),
  }
}

/** `postern grant revoke` */
export async function grantRevoke(config: Config, id: string): Promise<Answer> {
  const familyId = id.toLowerCase()
  const revoked = await withDatabase(
    config,
    async (db) => isId(familyId) && (await revokeTokenFamily(db, familyId, 'grant_revoked')),
  )
  if (!revoked) throw new AdminError(`There is no grant ${id}; postern grant list shows all.`)
  return {
    json: { id, revoked: true },
    text: [`Revoked ${id}: its tokens hold no longer, and the client has to ask again.`],
  }
}

function grantJson(grant: LivingGrant) {
  return {
    id: grant.id,
    user: grant.username,
    client_id: grant.clientId,
    client_name: grant.clientName,
    resource: grant.resource,
    scopes: grant.scope,
    created_at: grant.createdAt,
    approved_from: grant.approvedFrom,
    last_used_at: grant.lastUsedAt,
    expires_at: grant.expiresAt,
  }
}
