import * as z from 'zod'

const base64url = z.string().regex(/^[A-Za-z0-9_-]+$/)

/** Members of private and symmetric keys (RFC 7518 §6): a key that is sent or published with them is given away. */
const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']

/** A public key that a client may sign with (RFC 7517 §4); it comes out with the members of its type alone. */
export const publicKeySchema = z
  .looseObject({})
  .refine((jwk) => PRIVATE_MEMBERS.every((member) => !(member in jwk)))
  .pipe(
    z.discriminatedUnion('kty', [
      z.object({ kty: z.literal('EC'), crv: z.literal('P-256'), x: base64url.max(64), y: base64url.max(64) }),
      z.object({ kty: z.literal('OKP'), crv: z.literal('Ed25519'), x: base64url.max(64) }),
      // 2048 to 4096 bits, with a small exponent: others are weak, or take long to verify with
      z.object({ kty: z.literal('RSA'), n: base64url.min(342).max(683), e: base64url.max(6) }),
    ]),
  )
