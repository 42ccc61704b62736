import { specTypeSchemas } from '@modelcontextprotocol/client'
import {
  OAuthClientInformationFullSchema,
  OAuthErrorResponseSchema,
  OAuthMetadataSchema,
  OAuthProtectedResourceMetadataSchema,
  OAuthTokensSchema,
} from '@modelcontextprotocol/sdk/shared/auth.js'

/** What both official SDKs demand of each kind of answer. */
const SCHEMAS = {
  metadata: [OAuthMetadataSchema, specTypeSchemas.OAuthMetadata],
  'resource metadata': [OAuthProtectedResourceMetadataSchema, specTypeSchemas.OAuthProtectedResourceMetadata],
  registration: [OAuthClientInformationFullSchema, specTypeSchemas.OAuthClientInformationFull],
  tokens: [OAuthTokensSchema, specTypeSchemas.OAuthTokens],
  error: [OAuthErrorResponseSchema, specTypeSchemas.OAuthErrorResponse],
} as const

/** What an SDK would not accept in an answer; also members that are null or empty, which the schemas of others refuse. */
export async function problemsOf(kind: keyof typeof SCHEMAS, answer: unknown): Promise<string[]> {
  const problems = emptyMembers(answer, kind)
  for (const [index, schema] of SCHEMAS[kind].entries()) {
    const result = await schema['~standard'].validate(answer)
    for (const issue of result.issues ?? []) {
      problems.push(`SDK ${index + 1}: ${(issue.path ?? []).join('.')} ${issue.message}`)
    }
  }
  return problems
}

function emptyMembers(value: unknown, path: string): string[] {
  if (value === null || value === '') return [`${path} is ${JSON.stringify(value)}`]
  if (typeof value !== 'object') return []
  return Object.entries(value).flatMap(([name, member]) => emptyMembers(member, `${path}.${name}`))
}
