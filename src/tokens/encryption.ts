import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto'
import type { Config } from '../config.ts'
import { hashSecret, randomSecret } from './secret.ts'

/** The keys of the environment: one seals, and all of them open. */
export type EncryptionKeys = Pick<Config, 'encryptionKey' | 'decryptionKeys'>

/** POSTERN_ENCRYPTION_KEY is missing, or isn't the one that something was sealed with: an operator has to act. */
export class EncryptionKeyError extends Error {
  override readonly name = 'EncryptionKeyError'
}

/** A text that only the holder of the key can read, and which key that is. */
export interface SealedText {
  sealed: Buffer
  /** fingerprint of the key */
  sealedWith: Buffer
}

/**
 * Seals a text with the current key, so that the database, and a dump of it, doesn't hold it.
 *
 * @param boundTo what the text belongs to: it opens with the same value alone
 * @throws {EncryptionKeyError} when there is no key
 */
export function sealText(keys: EncryptionKeys, boundTo: string, plain: string): SealedText {
  const { encryptionKey } = keys
  if (encryptionKey === undefined) throw new EncryptionKeyError('POSTERN_ENCRYPTION_KEY is not set')
  return { sealed: seal(Buffer.from(encryptionKey), boundTo, plain), sealedWith: fingerprint(encryptionKey) }
}

/** Opens what `sealText` made, with the current key or one before it. @throws {EncryptionKeyError} when none fits */
export function openText(keys: EncryptionKeys, boundTo: string, sealed: Buffer): string {
  for (const key of [keys.encryptionKey, ...keys.decryptionKeys]) {
    if (key === undefined) continue
    try {
      return unseal(Buffer.from(key), boundTo, sealed)
    } catch {} // another key's
  }
  throw new EncryptionKeyError('neither POSTERN_ENCRYPTION_KEY nor POSTERN_DECRYPTION_KEYS opens what is stored')
}

/** Tells the current key from others, without saying anything about it. */
export function currentFingerprint({ encryptionKey }: EncryptionKeys): Buffer | undefined {
  return encryptionKey === undefined ? undefined : fingerprint(encryptionKey)
}

function fingerprint(key: string): Buffer {
  return hashSecret(`postern encryption key ${key}`).subarray(0, 8)
}

/**
 * Seals a text (AES-256-GCM) with a key derived from a secret that the database doesn't hold.
 *
 * @param boundTo what the sealed text belongs to: it opens with the same value alone
 */
function seal(secret: Buffer, boundTo: string, plain: string): Buffer {
  const nonce = randomSecret(12)
  const cipher = createCipheriv('aes-256-gcm', sealingKey(secret), nonce).setAAD(Buffer.from(boundTo))
  return Buffer.concat([nonce, cipher.update(plain, 'utf8'), cipher.final(), cipher.getAuthTag()])
}

/** Opens what `seal` made. @throws when the secret or `boundTo` is another, or the text was changed */
function unseal(secret: Buffer, boundTo: string, sealed: Buffer): string {
  const decipher = createDecipheriv('aes-256-gcm', sealingKey(secret), sealed.subarray(0, 12))
  decipher.setAAD(Buffer.from(boundTo)).setAuthTag(sealed.subarray(-16))
  return decipher.update(sealed.subarray(12, -16), undefined, 'utf8') + decipher.final('utf8')
}

function sealingKey(secret: Buffer): Buffer {
  return createHmac('sha256', secret).update('postern seal').digest() // one step suffices: a secret is no password
}
