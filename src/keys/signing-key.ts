import {
  type CryptoKey,
  calculateJwkThumbprint,
  exportJWK,
  exportPKCS8,
  generateKeyPair,
  importPKCS8,
  type JWK,
} from 'jose'
import type { Context } from '../context.ts'
import { PUBLISHED_BEFORE_SECONDS, type SigningAlgorithm } from '../protocol/signing-key.ts'
import {
  insertDueSigningKey,
  insertSigningKey,
  isSigningKeyDue,
  listSigningKeys,
  type NewSigningKey,
  noteConfiguredLifetime,
  replaceSigningKeys,
  type SigningKeyRow,
  sealSigningKey,
} from '../store/signing-key.ts'
import { EncryptionKeyError, type EncryptionKeys, openText, sealText } from '../tokens/encryption.ts'

/** Opens the private part of a key that was stored. @throws {EncryptionKeyError} */
export async function openPrivateKey(config: EncryptionKeys, key: SigningKeyRow): Promise<CryptoKey> {
  if (key.privateKey === null) throw new Error(`the signing key ${key.kid} signs no longer`)
  return importPKCS8(openPkcs8(config, key, key.privateKey), key.algorithm)
}

/**
 * What has to be done about signing keys now and then: the first is made when there is none, the next when the
 * current one has signed for its time; keys that were stored before there was an encryption key, or sealed with
 * another one, are sealed with the current one; and how long their tokens live is noted.
 * Safe to do on all replicas at once.
 *
 * @throws {EncryptionKeyError} and makes no key that others couldn't open
 */
export async function tendSigningKeys({ config, db, log }: Pick<Context, 'config' | 'db' | 'log'>): Promise<void> {
  demandOpenable(config, await listSigningKeys(db))
  const dueSeconds = config.signingKeySeconds - PUBLISHED_BEFORE_SECONDS
  if (await isSigningKeyDue(db, dueSeconds)) {
    const key = await makeSigningKey(config, config.signingAlgorithm)
    if (await insertDueSigningKey(db, key, { dueSeconds, leadSeconds: PUBLISHED_BEFORE_SECONDS })) {
      const facts = { event: 'signing_key_made', kid: key.kid, algorithm: key.algorithm }
      log.info(facts, 'signing key made')
    }
  }
  const keys = await listSigningKeys(db)
  demandOpenable(config, keys) // a replica with another encryption key may have made the first one
  for (const key of keys) await sealStoredKey({ config, db, log }, key)
  await noteConfiguredLifetime(db, config.accessTokenSeconds)
}

/**
 * Makes a new key by command.
 *
 * @param withdraw an emergency: the new one signs at once, and all others are withdrawn, so that no token that
 *   they signed is believed any more; else the others go when their last token has expired
 * @throws {EncryptionKeyError} when the new key would be stored in another way than the others
 */
export async function rotateSigningKey(
  { config, db }: Pick<Context, 'config' | 'db'>,
  algorithm: SigningAlgorithm,
  withdraw: boolean,
): Promise<{ kid: string; withdrawn: string[] }> {
  const stored = await listSigningKeys(db)
  if (!withdraw) demandOpenable(config, stored)
  else if (config.encryptionKey === undefined && stored.some(({ sealed }) => sealed)) throw keyMissing()
  const key = await makeSigningKey(config, algorithm)
  if (withdraw) return { kid: key.kid, withdrawn: await replaceSigningKeys(db, key, config.accessTokenSeconds) }
  await insertSigningKey(db, key, stored.length === 0 ? 0 : PUBLISHED_BEFORE_SECONDS)
  return { kid: key.kid, withdrawn: [] }
}

/** A new key; its id is its thumbprint (RFC 7638). */
async function makeSigningKey(config: EncryptionKeys, algorithm: SigningAlgorithm): Promise<NewSigningKey> {
  const pair = await generateKeyPair(algorithm, { extractable: true })
  const jwk: JWK = await exportJWK(pair.publicKey)
  const kid = await calculateJwkThumbprint(jwk)
  const pkcs8 = await exportPKCS8(pair.privateKey)
  const { encryptionKey } = config
  return {
    kid,
    algorithm,
    publicJwk: { ...jwk, kid, alg: algorithm, use: 'sig' },
    privateKey: encryptionKey === undefined ? Buffer.from(pkcs8) : sealText(config, boundTo(kid), pkcs8).sealed,
    sealed: encryptionKey !== undefined,
  }
}

function demandOpenable(config: EncryptionKeys, keys: SigningKeyRow[]): void {
  for (const key of keys) if (key.privateKey !== null) openPkcs8(config, key, key.privateKey)
}

/** The private key in PEM. @throws {EncryptionKeyError} */
function openPkcs8(config: EncryptionKeys, { kid, sealed }: SigningKeyRow, privateKey: Buffer): string {
  if (!sealed) return privateKey.toString()
  if (config.encryptionKey === undefined) throw keyMissing()
  try {
    return openText(config, boundTo(kid), privateKey)
  } catch {
    throw keyProblem('POSTERN_ENCRYPTION_KEY does not open the stored signing keys')
  }
}

async function sealStoredKey(
  { config, db, log }: Pick<Context, 'config' | 'db' | 'log'>,
  key: SigningKeyRow,
): Promise<void> {
  const { kid, privateKey } = key
  if (config.encryptionKey === undefined || privateKey === null || isSealedWithCurrent(config, key, privateKey)) return
  const { sealed } = sealText(config, boundTo(kid), openPkcs8(config, key, privateKey))
  const changed = await sealSigningKey(db, kid, { before: privateKey, sealed })
  if (changed) log.info({ event: 'signing_key_sealed', kid }, 'signing key sealed')
}

function isSealedWithCurrent(
  { encryptionKey }: EncryptionKeys,
  { kid, sealed }: SigningKeyRow,
  privateKey: Buffer,
): boolean {
  if (!sealed) return false
  try {
    openText({ encryptionKey, decryptionKeys: [] }, boundTo(kid), privateKey)
    return true
  } catch {
    return false
  }
}

function boundTo(kid: string): string {
  return `signing_key ${kid}`
}

function keyMissing(): EncryptionKeyError {
  return keyProblem('The stored signing keys are sealed, and POSTERN_ENCRYPTION_KEY is not set')
}

function keyProblem(problem: string): EncryptionKeyError {
  const setIt = 'Set the one that they were sealed with, or name it in POSTERN_DECRYPTION_KEYS beside a new one'
  const lost =
    'if it is lost, set a new one, and withdraw them with postern key rotate --now, and with them all JWT access tokens'
  return new EncryptionKeyError(`${problem}. ${setIt}; ${lost}.`)
}
