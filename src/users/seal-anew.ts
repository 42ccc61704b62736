import type { Context } from '../context.ts'
import type { IdentityProviderRow } from '../store/database.ts'
import { listIdentityProviders, replaceSealedClientSecret } from '../store/identity-provider.ts'
import {
  listTokensSealedOtherwise,
  replaceSealedTokens,
  type SealedTokensRow,
  type UpstreamTokenKey,
} from '../store/upstream-token.ts'
import { currentFingerprint, EncryptionKeyError } from '../tokens/encryption.ts'
import { openUpstreamToken, sealUpstreamTokens } from '../tokens/upstream-token.ts'
import { openClientSecret, sealClientSecret } from './identity-provider.ts'

const BATCH = 200

/**
 * Seals with the current encryption key what another one has sealed of identity providers, so that the other may go.
 * What can't be opened stays as it is, and is logged. Safe to do on all replicas at once.
 */
export async function sealAnew(context: Pick<Context, 'config' | 'db' | 'log'>): Promise<void> {
  const current = currentFingerprint(context.config)
  if (current === undefined) return
  const results = { sealed: 0, unopenable: 0 }
  for (const provider of await listIdentityProviders(context.db)) {
    if (provider.client_secret === null || provider.sealed_with?.equals(current)) continue
    await count(results, () => sealSecretAnew(context, provider, provider.client_secret as Buffer))
  }
  let last: UpstreamTokenKey | undefined
  do {
    const rows = await listTokensSealedOtherwise(context.db, current, last, BATCH)
    for (const row of rows) await count(results, () => sealTokensAnew(context, row))
    last = rows.length < BATCH ? undefined : rows.at(-1)
  } while (last !== undefined)
  if (results.sealed > 0)
    context.log.info({ event: 'sealed_anew', count: results.sealed }, 'sealed with the current key')
  if (results.unopenable > 0) {
    const advice = 'POSTERN_ENCRYPTION_KEY and POSTERN_DECRYPTION_KEYS do not open all that identity providers gave'
    context.log.error({ event: 'sealed_with_unknown_key', count: results.unopenable }, advice)
  }
}

async function count(results: { sealed: number; unopenable: number }, work: () => Promise<boolean>): Promise<void> {
  try {
    if (await work()) results.sealed += 1
  } catch (error) {
    if (!(error instanceof EncryptionKeyError)) throw error
    results.unopenable += 1
  }
}

async function sealSecretAnew(
  { config, db }: Pick<Context, 'config' | 'db'>,
  { id }: IdentityProviderRow,
  before: Buffer,
): Promise<boolean> {
  return replaceSealedClientSecret(db, id, before, sealClientSecret(config, id, openClientSecret(config, id, before)))
}

async function sealTokensAnew({ config, db }: Pick<Context, 'config' | 'db'>, row: SealedTokensRow): Promise<boolean> {
  const { accessToken, refreshToken } = row
  const tokens = {
    access_token: openUpstreamToken(config, row, 'access_token', accessToken),
    refresh_token: refreshToken === null ? undefined : openUpstreamToken(config, row, 'refresh_token', refreshToken),
  }
  return replaceSealedTokens(db, row, sealUpstreamTokens(config, row, tokens))
}
