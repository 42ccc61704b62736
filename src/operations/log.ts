import { type Logger, pino } from 'pino'

/**
 * The log: JSON lines on standard output. No line is given a query, a body, a header or a cookie in the first
 * place; the redaction is the second net.
 */
export function createLog(level: string): Logger {
  return pino({
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    serializers: { err: describeError },
    formatters: { level: (label) => ({ level: label }) },
    redact: {
      paths: SECRET_MEMBERS.flatMap((member) => [member, `*.${member}`, `*.*.${member}`]),
      censor: '[redacted]',
    },
  })
}

/** What an operator needs of an error; others of its members can hold values of rows, or a whole connection. */
function describeError(error: unknown) {
  if (!(error instanceof Error)) return { message: String(error) }
  const { code, constraint, table, routine } = error as Error & Record<string, unknown>
  return { type: error.name, message: error.message, error_code: code, constraint, table, routine, stack: error.stack }
}

const SECRET_MEMBERS = [
  'authorization',
  'cookie',
  '["set-cookie"]',
  'password',
  'client_secret',
  'client_assertion',
  'code',
  'code_verifier',
  'access_token',
  'refresh_token',
  'token',
]
