import * as z from 'zod'
import type { Context } from '../context.ts'
import {
  type ClientMetadata,
  effectiveClientMetadata,
  REGISTRABLE_GRANT_TYPES,
  type RegistrationRules,
  type RequestedClientMetadata,
} from '../protocol/client-metadata.ts'
import { type DocumentMethod, readDocumentMethods } from '../protocol/metadata-document.ts'
import { OAuthError } from '../protocol/oauth-error.ts'
import { keySetSchema } from './key-set.ts'

/** `null` and `""` count as absent; what Postgres can't keep is refused. */
const text = z
  .string()
  .max(2048)
  .refine((value) => !value.includes('\0') && value.isWellFormed())
  .nullish()
  .transform((value) => value ?? undefined)
const texts = z
  .array(
    z
      .string()
      .max(2048)
      .refine((value) => !value.includes('\0') && value.isWellFormed()),
  )
  .max(50)
  .nullish()
  .transform((value) => value ?? undefined)

/** A member that only describes: an unusable value is left out, and the client accepted all the same. */
const description = text.catch(undefined)

const flag = z
  .boolean()
  .nullish()
  .transform((value) => value ?? undefined)

/** The members that mean something here (RFC 7591 §2); others are left out. */
const requestSchema = z.object({
  redirect_uris: texts,
  token_endpoint_auth_method: text,
  grant_types: texts,
  response_types: texts,
  scope: text,
  client_name: description,
  client_uri: description,
  logo_uri: description,
  tos_uri: description,
  policy_uri: description,
  contacts: texts.catch(undefined),
  software_id: description,
  software_version: description,
  application_type: description,
  dpop_bound_access_tokens: flag,
  require_pushed_authorization_requests: flag,
  jwks: keySetSchema.nullish().transform((value) => value ?? undefined),
  jwks_uri: text,
  token_endpoint_auth_signing_alg: text,
})

/** Members of a metadata document beside those of a registration. */
const documentSchema = z.looseObject({ client_id: z.string(), token_endpoint_auth_methods_supported: texts })

/**
 * Reads the metadata that a client sends about itself (RFC 7591 §2), and works out what takes effect.
 *
 * @param body parsed JSON of any shape
 * @throws {OAuthError} `invalid_redirect_uri`, `invalid_client_metadata`
 */
export function readClientMetadata({ config }: Context, body: unknown): ClientMetadata {
  return effectiveClientMetadata(readRequested(body), rulesOf(config))
}

/**
 * Reads a metadata document (draft-ietf-oauth-client-id-metadata-document §4): the same metadata, and what only a
 * document says.
 *
 * @param clientId the address that it came from
 * @returns `methods`: how the client may authenticate; it chooses for each request
 * @throws {OAuthError} `invalid_redirect_uri`, `invalid_client_metadata`
 */
export function readDocumentMetadata(
  { config }: Context,
  clientId: string,
  body: unknown,
): { metadata: ClientMetadata; methods: DocumentMethod[] } {
  const words = documentSchema.safeParse(body)
  if (!words.success) throw new OAuthError('invalid_client_metadata', 'the document says too little about itself')
  const requested = readRequested(body)
  const hasKeys = (requested.jwks?.length ?? 0) > 0 || requested.jwks_uri !== undefined
  const methods = readDocumentMethods(clientId, words.data, hasKeys)
  const strongest = methods.includes('private_key_jwt') ? 'private_key_jwt' : 'none'
  const metadata = effectiveClientMetadata({ ...requested, token_endpoint_auth_method: strongest }, rulesOf(config))
  return { metadata, methods }
}

function rulesOf({ redirectSchemes, metadataDocumentLoopback }: Context['config']): RegistrationRules {
  return { redirectSchemes, grantTypes: REGISTRABLE_GRANT_TYPES, httpKeys: metadataDocumentLoopback }
}

function readRequested(body: unknown): RequestedClientMetadata {
  const requested = requestSchema.safeParse(body)
  if (!requested.success) {
    const member = requested.error.issues[0]?.path[0]
    const code = member === 'redirect_uris' ? 'invalid_redirect_uri' : 'invalid_client_metadata'
    const problem = typeof member === 'string' ? `${member} has an unusable value` : 'the body is not a JSON object'
    throw new OAuthError(code, problem)
  }
  return requested.data
}
