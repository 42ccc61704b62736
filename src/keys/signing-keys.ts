import { CompactSign, type CryptoKey, compactVerify, errors, importJWK, type JWK, type JWSHeaderParameters } from 'jose'
import * as z from 'zod'
import type { Context } from '../context.ts'
import type { IntrospectionResponse } from '../protocol/introspection.ts'
import {
  ACCESS_TOKEN_TYPE,
  accessTokenClaims,
  chooseSigningKey,
  INTROSPECTION_TYPE,
  type SigningAlgorithm,
} from '../protocol/signing-key.ts'
import type { IssuedAccessToken } from '../store/access-token.ts'
import { isDatabaseUnavailable } from '../store/database.ts'
import { listSigningKeys, noteTokenLifetime, type SigningKeyRow } from '../store/signing-key.ts'
import { openPrivateKey, tendSigningKeys } from './signing-key.ts'

/** The server's own signing keys, and what is signed with them. */
export interface SigningKeys {
  /** An access token as a JWT (RFC 9068 §2); `reference` becomes its `jti`. */
  signAccessToken(clientId: string, reference: string, issued: IssuedAccessToken): Promise<string>
  /** The `jti` of an access token that we signed, whether it has expired or not; `undefined` for anything else. */
  readAccessToken(jwt: string): Promise<string | undefined>
  /** An introspection response as a JWT (RFC 9701 §5), made at an instant of the database's clock. */
  signIntrospection(resourceServerId: string, response: IntrospectionResponse, atSeconds: number): Promise<string>
  /** What others need to verify it all. */
  published(): Promise<PublishedKeys>
  /** Makes keys when they are due (`tendSigningKeys`), and reads them anew. */
  tend(): Promise<void>
}

/** Public keys. */
export interface PublishedKeys {
  /** JWK set (RFC 7517 §5), in JSON */
  jwks: string
  algorithms: SigningAlgorithm[]
}

/** For how long keys are used before they are read anew: what an operator changes shows within this time. */
const FRESH_SECONDS = 5
/** How often at most a `kid` that nobody knows makes this process read the keys anew before that. */
const UNKNOWN_KID_SECONDS = 1

/** A key, ready for use. */
interface SigningKey {
  kid: string
  algorithm: SigningAlgorithm
  signsFromSeconds: number
  canSign: boolean
  longestTokenSeconds: number
  publicJwk: JWK
  publicKey: CryptoKey
  privateKey(): Promise<CryptoKey>
}

/** In the order in which they begin to sign. */
type KeyRing = SigningKey[]

/** What of a payload is needed to find the token. */
const AccessTokenPayload = z.object({ iss: z.string(), jti: z.string().regex(/^[\w-]{43}$/) })

/**
 * The signing keys of the database, as every replica has them: kept for a few seconds, and read anew when a JWT
 * names a key that isn't known. While the database is away the last ones stay in use.
 */
export function createSigningKeys(context: Pick<Context, 'config' | 'db' | 'log'>): SigningKeys {
  const { config, db } = context
  let last: KeyRing = []
  let fresh: Promise<KeyRing> | undefined
  let mayReread = true

  const forget = () => {
    fresh = undefined
  }
  const keyRing = () => {
    fresh ??= load()
    return fresh
  }

  async function load(): Promise<KeyRing> {
    try {
      const rows = await listSigningKeys(db)
      last = await Promise.all(rows.map((row) => readyKey(row)))
    } catch (error) {
      forget()
      if (last.length === 0 || !isDatabaseUnavailable(error)) throw error
      return last
    }
    setTimeout(forget, FRESH_SECONDS * 1000).unref()
    return last
  }

  /** Imports a key, unless that was done before. */
  async function readyKey(row: SigningKeyRow): Promise<SigningKey> {
    const before = last.find(({ kid }) => kid === row.kid)
    let privateKey: Promise<CryptoKey> | undefined
    return {
      kid: row.kid,
      algorithm: row.algorithm,
      signsFromSeconds: row.signsFromSeconds,
      canSign: row.privateKey !== null,
      longestTokenSeconds: row.longestTokenSeconds,
      publicJwk: row.publicJwk,
      publicKey: before?.publicKey ?? ((await importJWK(row.publicJwk, row.algorithm)) as CryptoKey),
      privateKey:
        before?.privateKey ??
        (() => {
          privateKey ??= openPrivateKey(config, row)
          return privateKey
        }),
    }
  }

  /** The key with this id; an unknown one is looked for in the database, if that wasn't done a moment ago. */
  async function findKey(kid: string): Promise<SigningKey | undefined> {
    const known = (await keyRing()).find((key) => key.kid === kid)
    if (known !== undefined || !mayReread) return known
    mayReread = false
    setTimeout(() => {
      mayReread = true
    }, UNKNOWN_KID_SECONDS * 1000).unref()
    forget()
    return (await keyRing()).find((key) => key.kid === kid)
  }

  async function keyAt(seconds: number): Promise<SigningKey> {
    const key = chooseSigningKey(await keyRing(), seconds)
    if (key === undefined) throw new Error('there is no signing key')
    return key
  }

  /** The key for a token with this lifetime, which it will outlive. */
  async function keyForToken(atSeconds: number, lifetimeSeconds: number): Promise<SigningKey> {
    const key = await keyAt(atSeconds)
    if (lifetimeSeconds <= key.longestTokenSeconds) return key
    if (await noteTokenLifetime(db, key.kid, lifetimeSeconds)) {
      key.longestTokenSeconds = lifetimeSeconds
      return key
    }
    forget() // it was withdrawn
    return keyForToken(atSeconds, lifetimeSeconds)
  }

  return {
    async signAccessToken(clientId, reference, issued) {
      // a pair that a client converges on is signed anew, maybe long after it was issued: the key is today's
      const nowSeconds = issued.expiresAtSeconds - issued.expiresInSeconds
      const key = await keyForToken(nowSeconds, issued.expiresAtSeconds - issued.issuedAtSeconds)
      return sign(key, ACCESS_TOKEN_TYPE, accessTokenClaims(config.issuer, { ...issued, clientId, reference }))
    },

    async readAccessToken(jwt) {
      let payload: Uint8Array
      const findVerificationKey = async ({ kid, alg, typ }: JWSHeaderParameters) => {
        const key = typ === ACCESS_TOKEN_TYPE && typeof kid === 'string' ? await findKey(kid) : undefined
        // the key says which algorithm it is for, never the token (RFC 8725 §3.1)
        if (key === undefined || key.algorithm !== alg) throw new errors.JWKSNoMatchingKey()
        return key.publicKey
      }
      try {
        ;({ payload } = await compactVerify(jwt, findVerificationKey))
      } catch (error) {
        if (error instanceof errors.JOSEError) return undefined
        throw error
      }
      const claims = AccessTokenPayload.safeParse(JSON.parse(Buffer.from(payload).toString()))
      return claims.success && claims.data.iss === config.issuer ? claims.data.jti : undefined
    },

    async signIntrospection(resourceServerId, response, atSeconds) {
      const claims = { iss: config.issuer, aud: resourceServerId, iat: atSeconds, token_introspection: response }
      return sign(await keyAt(atSeconds), INTROSPECTION_TYPE, claims)
    },

    async published() {
      const ring = await keyRing()
      return {
        jwks: JSON.stringify({ keys: ring.map(({ publicJwk }) => publicJwk) }),
        algorithms: [...new Set(ring.map(({ algorithm }) => algorithm))],
      }
    },

    async tend() {
      await tendSigningKeys(context)
      forget()
      await keyRing() // so that there is one, should the database go away between storing a token and signing it
    },
  }
}

async function sign(key: SigningKey, typ: string, claims: object): Promise<string> {
  return new CompactSign(Buffer.from(JSON.stringify(claims)))
    .setProtectedHeader({ alg: key.algorithm, kid: key.kid, typ })
    .sign(await key.privateKey())
}
