import { type Bindings, type Logger, pino } from 'pino'

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

/**
 * The log of one request. Most requests log nothing, so the logger whose lines carry their id is made when the first
 * line is written: it costs a twentieth of an introspection.
 */
export class RequestLog {
  readonly #log: Logger
  readonly #bindings: Bindings
  #child: Logger | undefined

  constructor(log: Logger, bindings: Bindings) {
    this.#log = log
    this.#bindings = bindings
  }

  get #own(): Logger {
    this.#child ??= this.#log.child(this.#bindings)
    return this.#child
  }

  get level(): string {
    return this.#log.level
  }

  child(bindings: Bindings): Logger {
    return this.#log.child({ ...this.#bindings, ...bindings })
  }

  fatal(facts: object, message?: string): void {
    this.#own.fatal(facts, message)
  }

  error(facts: object, message?: string): void {
    this.#own.error(facts, message)
  }

  warn(facts: object, message?: string): void {
    this.#own.warn(facts, message)
  }

  info(facts: object, message?: string): void {
    this.#own.info(facts, message)
  }

  debug(facts: object, message?: string): void {
    this.#own.debug(facts, message)
  }

  trace(facts: object, message?: string): void {
    this.#own.trace(facts, message)
  }

  silent(): void {}
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
