import { OAuthError } from './oauth-error.ts'

/** Request parameters by name: each once, none empty. */
export type Parameters = ReadonlyMap<string, string>

/** The most characters that a parameter may have: ample for a long `state`, and its URL stays below 16 KB. */
const LONGEST_VALUE = 8192

/**
 * Sorts the parameters of a parsed query or form into usable ones and problems.
 *
 * An empty value counts as absent, and a parameter may not come twice (RFC 6749 §3.1, §3.2): a second
 * `resource` is `invalid_target`, since one token is for one resource here (RFC 8707 §2).
 *
 * @param parsed what the query or form parser made: values are strings, or arrays of a repeated name
 * @returns `problems` by the name of the parameter, which is then missing in `parameters`
 */
export function sortParameters(parsed: unknown): { parameters: Parameters; problems: ReadonlyMap<string, OAuthError> } {
  const parameters = new Map<string, string>()
  const problems = new Map<string, OAuthError>()
  if (typeof parsed !== 'object' || parsed === null) return { parameters, problems }
  for (const [name, value] of Object.entries(parsed)) {
    const problem = problemOf(name, value)
    if (problem !== undefined) problems.set(name, problem)
    else if (value !== '') parameters.set(name, value)
  }
  return { parameters, problems }
}

/** Reads the parameters of a parsed query or form. @throws {OAuthError} `invalid_request`, `invalid_target` */
export function readParameters(parsed: unknown): Parameters {
  const { parameters, problems } = sortParameters(parsed)
  for (const problem of problems.values()) throw problem
  return parameters
}

function problemOf(name: string, value: unknown): OAuthError | undefined {
  if (Array.isArray(value)) {
    return name === 'resource'
      ? new OAuthError('invalid_target', 'only one resource may be requested')
      : new OAuthError('invalid_request', 'a parameter is present more than once', 'parameter_repeated')
  }
  if (typeof value !== 'string') return new OAuthError('invalid_request', 'a parameter is not text')
  if (value.length > LONGEST_VALUE) return new OAuthError('invalid_request', 'a parameter is too long')
  if (value.includes('\0') || name.includes('\0')) {
    return new OAuthError('invalid_request', 'a parameter holds a NUL character')
  }
  return undefined
}

/** The value of a parameter that must be there. @throws {OAuthError} `invalid_request` */
export function required(parameters: Parameters, name: string): string {
  const value = parameters.get(name)
  if (value === undefined) throw new OAuthError('invalid_request', `${name} is missing`)
  return value
}
