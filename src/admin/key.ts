import type { Config } from '../config.ts'
import { rotateSigningKey } from '../keys/signing-key.ts'
import { JWKS_CACHE_SECONDS, PUBLISHED_BEFORE_SECONDS, type SigningAlgorithm } from '../protocol/signing-key.ts'
import { listSigningKeys, type SigningKeyRow } from '../store/signing-key.ts'
import { EncryptionKeyError } from '../tokens/encryption.ts'
import { withDatabase } from './database.ts'
import { AdminError, type Answer, count, instant, table } from './output.ts'

/** Options of `postern key rotate`. */
export interface KeyRotateOptions {
  algorithm?: SigningAlgorithm
  now?: boolean
}

/** `postern key list` */
export async function keyList(config: Config): Promise<Answer> {
  const keys = await withDatabase(config, listSigningKeys)
  const rows = keys.map((key) => [
    key.kid,
    key.algorithm,
    key.state,
    instant(key.signsFrom),
    key.signsUntil === null ? '' : instant(key.signsUntil),
    key.removedAt === null ? '' : instant(key.removedAt),
    storedAs(key),
  ])
  return {
    json: keys.map((key) => ({
      kid: key.kid,
      algorithm: key.algorithm,
      state: key.state,
      created_at: key.createdAt,
      signs_from: key.signsFrom,
      signs_until: key.signsUntil,
      removed_at: key.removedAt,
      private_key: storedAs(key),
    })),
    text: table(
      ['KEY', 'ALGORITHM', 'STATE', 'SIGNS FROM (UTC)', 'UNTIL', 'REMOVED', 'PRIVATE KEY'],
      rows,
      'There is no signing key yet: the server makes one when it starts.',
    ),
  }
}

/** `postern key rotate` */
export async function keyRotate(config: Config, options: KeyRotateOptions): Promise<Answer> {
  const algorithm = options.algorithm ?? config.signingAlgorithm
  const withdraw = options.now === true
  const { key, withdrawn } = await withDatabase(config, async (db) => {
    const { kid, withdrawn } = await rotate({ config, db }, algorithm, withdraw)
    const key = (await listSigningKeys(db)).find((one) => one.kid === kid)
    if (key === undefined) throw new AdminError('The new key was withdrawn by another command.')
    return { key, withdrawn }
  })
  const minutes = (seconds: number) => `${seconds / 60} minutes`
  return {
    json: { kid: key.kid, algorithm: key.algorithm, signs_from: key.signsFrom, withdrawn },
    text: withdraw
      ? [
          `The new key ${key.kid} (${key.algorithm}) signs from now on; ${count(withdrawn.length, 'key')} withdrawn.`,
          `JWT access tokens signed before are refused here at once, and by resource servers when they read ${config.issuer}/jwks again, within ${minutes(JWKS_CACHE_SECONDS)}. Clients get new ones by refreshing.`,
          ...(key.sealed ? ['Servers need the POSTERN_ENCRYPTION_KEY that this command had.'] : []),
        ]
      : [
          `The new key ${key.kid} (${key.algorithm}) is published at ${config.issuer}/jwks, and signs from ${instant(key.signsFrom)} UTC on:`,
          `resource servers have to know it first, which takes up to ${minutes(PUBLISHED_BEFORE_SECONDS)}. The old one stays until its last token has expired.`,
        ],
  }
}

async function rotate(...parameters: Parameters<typeof rotateSigningKey>) {
  try {
    return await rotateSigningKey(...parameters)
  } catch (error) {
    throw error instanceof EncryptionKeyError ? new AdminError(error.message) : error
  }
}

function storedAs({ privateKey, sealed }: SigningKeyRow): 'erased' | 'sealed' | 'plain' {
  if (privateKey === null) return 'erased'
  return sealed ? 'sealed' : 'plain'
}
