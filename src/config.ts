import { readFileSync } from 'node:fs'
import ipaddr from 'ipaddr.js'
import * as z from 'zod'
import { LONGEST_ACCESS_TOKEN_SECONDS } from './protocol/introspection.ts'
import { SIGNING_ALGORITHMS, type SigningAlgorithm } from './protocol/signing-key.ts'

/** What the process was told, checked. Durations are whole seconds. */
export interface Config {
  /** exactly as in metadata and `iss`: no trailing slash */
  issuer: string
  /** path of the issuer: `''` or for example `/auth`; every URL is below it */
  basePath: string
  host: string
  port: number
  /** `undefined`: the embedded database below `dataDirectory` */
  databaseUrl: string | undefined
  dataDirectory: string
  logLevel: string
  accessTokenSeconds: number
  refreshTokenSeconds: number
  familySeconds: number
  refreshGraceSeconds: number
  codeSeconds: number
  sessionSeconds: number
  /** of new signing keys */
  signingAlgorithm: SigningAlgorithm
  signingKeySeconds: number
  /** seals private keys, and what identity providers issued, in the database */
  encryptionKey: string | undefined
  /** open what they sealed before; they seal nothing more */
  decryptionKeys: string[]
  /** people may sign in with a password of this server, and sessions that began so count */
  passwordSignIn: boolean
  registration: 'open' | 'token' | 'off'
  registrationToken: string | undefined
  unusedClientSeconds: number
  redirectSchemes: string[]
  /** clients may bring metadata documents */
  metadataDocument: boolean
  /** hosts whose documents are accepted: names, or `*.example.com`; `undefined`: all but those of the next */
  metadataDocumentAllow: string[] | undefined
  metadataDocumentDeny: string[]
  /** for development: documents and keys may come from loopback, also over http */
  metadataDocumentLoopback: boolean
  issParameter: boolean
  /** of this service, on its pages */
  name: string
  /** an image as a `data:` URI, shown instead of the mark */
  logo: string | undefined
  /** `#rrggbb` */
  accentColor: string | undefined
  errorUri: string | undefined
  /** proxies in front: none, a number of them, or their addresses and ranges */
  trustProxy: false | number | string[]
  adminUsername: string | undefined
  adminPassword: string | undefined
}

interface Setting {
  name: string
  meaning: string
  /** shown in the help; read as if it had been set */
  fallback?: string
  /** may come from a file named by NAME_FILE */
  secret?: boolean
  schema: z.ZodType
}

const DAY = 86_400

/** A whole number of seconds. */
function seconds(least: number, most: number) {
  return z
    .string()
    .regex(/^\d{1,9}$/, 'must be a whole number of seconds')
    .transform(Number)
    .pipe(z.number().min(least, `must be at least ${least} seconds`).max(most, `must be at most ${most} seconds`))
}

const onOff = z.enum(['on', 'off'], { error: 'must be on or off' }).transform((word) => word === 'on')

const issuer = z.string().superRefine((text, problems) => {
  const problem = issuerProblem(text)
  if (problem !== undefined) problems.addIssue(problem)
})

const proxies = z.string().transform((text, problems): false | number | string[] => {
  if (text === 'off') return false
  if (/^\d{1,2}$/.test(text)) return Number(text) || false
  const ranges = list(text)
  // in full: 10/8 would be read as 0.0.0.10/8, and 100 as 0.0.0.100
  const isPlain = (range: string) => /^\d+(\.\d+){3}(\/|$)|:/.test(range)
  if (
    ranges.length === 0 ||
    !ranges.every((range) => isPlain(range) && (ipaddr.isValid(range) || ipaddr.isValidCIDR(range)))
  ) {
    problems.addIssue('must be off, a number of proxies, or addresses and ranges such as 10.0.0.0/8,fd00::/8')
    return z.NEVER
  }
  return ranges
})

const schemes = z
  .string()
  .transform(list)
  .pipe(z.array(z.string().regex(/^[a-z][a-z0-9+.-]*$/, 'must be URI schemes in lower case, such as cursor')))

const hosts = z
  .string()
  .transform(list)
  .pipe(
    z.array(
      z
        .string()
        .regex(
          /^(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?$/,
          'must be host names in lower case, such as claude.ai or *.example.com',
        ),
    ),
  )

/** Bytes: the image is in every page. */
const LARGEST_LOGO = 200 * 1024

/** The kinds of images that browsers show, by their first bytes, as Latin-1 text. */
const IMAGE_TYPES: [string, RegExp][] = [
  ['image/png', /^\x89PNG\r\n\x1a\n/],
  ['image/jpeg', /^\xff\xd8\xff/],
  ['image/webp', /^RIFF[\s\S]{4}WEBP/],
  ['image/svg+xml', /^(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--[\s\S]*?-->\s*|<!DOCTYPE[^>]*>\s*)*<svg[\s>]/],
]

const logo = z.string().transform((file, problems): string => {
  try {
    const content = readFileSync(file)
    const type = IMAGE_TYPES.find(([, beginning]) => beginning.test(content.toString('latin1')))?.[0]
    if (content.length > LARGEST_LOGO) problems.addIssue('must name an image of at most 200 KB')
    else if (type === undefined) problems.addIssue('must name an SVG, PNG, JPEG or WebP image')
    else return `data:${type};base64,${content.toString('base64')}`
  } catch (error) {
    problems.addIssue(`can't be read: ${(error as Error).message}`)
  }
  return z.NEVER
})

const ENCRYPTION_KEY_TOO_SHORT = 'must have at least 32 characters: openssl rand -base64 32 makes some'

/** Every setting, in the order of the help. The key is the name in `Config`. */
const SETTINGS = {
  issuer: {
    name: 'ISSUER',
    meaning: 'public address of this server; https, or http on loopback; a path is allowed, a trailing slash is not',
    fallback: 'http://localhost:PORT',
    schema: issuer,
  },
  port: {
    name: 'PORT',
    meaning: 'port to listen on',
    fallback: '3000',
    schema: z
      .string()
      .regex(/^\d{1,5}$/, 'must be a port number')
      .transform(Number)
      .pipe(z.number().min(1, 'must be a port number').max(65_535, 'must be a port number')),
  },
  host: {
    name: 'HOST',
    meaning: 'address to listen on; 0.0.0.0 for every IPv4 interface, :: for all',
    fallback: 'localhost',
    schema: z.string(),
  },
  databaseUrl: {
    name: 'DATABASE_URL',
    meaning: 'Postgres, such as postgres://user:password@host:5432/postern; absent: an embedded Postgres',
    secret: true,
    schema: z.string().regex(/^postgres(ql)?:\/\/./, 'must begin with postgres:// or postgresql://'),
  },
  dataDirectory: {
    name: 'DATA_DIR',
    meaning: 'folder of the embedded database',
    fallback: './data',
    schema: z.string(),
  },
  logLevel: {
    name: 'LOG_LEVEL',
    meaning: 'trace, debug, info, warn, error, fatal or silent',
    fallback: 'info',
    schema: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], {
      error: 'must be trace, debug, info, warn, error, fatal or silent',
    }),
  },
  accessTokenSeconds: {
    name: 'POSTERN_ACCESS_TOKEN_SECONDS',
    meaning: 'lifetime of an access token',
    fallback: '3600',
    schema: seconds(30, LONGEST_ACCESS_TOKEN_SECONDS),
  },
  refreshTokenSeconds: {
    name: 'POSTERN_REFRESH_TOKEN_SECONDS',
    meaning: 'a refresh token that is not used for this long ends',
    fallback: String(30 * DAY),
    schema: seconds(60, 3650 * DAY),
  },
  familySeconds: {
    name: 'POSTERN_FAMILY_SECONDS',
    meaning: 'a grant ends after this time, however often it is refreshed',
    fallback: String(365 * DAY),
    schema: seconds(60, 3650 * DAY),
  },
  refreshGraceSeconds: {
    name: 'POSTERN_REFRESH_GRACE_SECONDS',
    meaning: 'a superseded refresh token still gets the current pair for this long; 0 turns that off',
    fallback: '120',
    schema: seconds(0, 3600),
  },
  codeSeconds: {
    name: 'POSTERN_CODE_SECONDS',
    meaning: 'lifetime of an authorization code',
    fallback: '60',
    schema: seconds(5, 600),
  },
  sessionSeconds: {
    name: 'POSTERN_SESSION_SECONDS',
    meaning: 'how long a person stays signed in',
    fallback: String(DAY / 2),
    schema: seconds(60, 365 * DAY),
  },
  signingAlgorithm: {
    name: 'POSTERN_SIGNING_ALGORITHM',
    meaning:
      'of new signing keys, for JWT access tokens: ES256, EdDSA or RS256; postern key rotate makes a new one now',
    fallback: 'ES256',
    schema: z.enum(SIGNING_ALGORITHMS, { error: 'must be ES256, EdDSA or RS256' }),
  },
  signingKeySeconds: {
    name: 'POSTERN_SIGNING_KEY_SECONDS',
    meaning: 'how long a signing key signs before the next one takes over by itself',
    fallback: String(90 * DAY),
    schema: seconds(3600, 3650 * DAY), // longer than a key is published before it signs
  },
  encryptionKey: {
    name: 'POSTERN_ENCRYPTION_KEY',
    meaning:
      'seals private signing keys and the tokens of identity providers in the database; at least 32 random characters, such as those of openssl rand -base64 32',
    secret: true,
    schema: z.string().min(32, ENCRYPTION_KEY_TOO_SHORT),
  },
  decryptionKeys: {
    name: 'POSTERN_DECRYPTION_KEYS',
    meaning:
      'further keys that open what they sealed, separated by commas or line breaks, so none with a comma in it: for a change of POSTERN_ENCRYPTION_KEY',
    secret: true,
    schema: z
      .string()
      .transform((text) => list(text.replaceAll(/[\r\n]+/g, ',')))
      .pipe(z.array(z.string().min(32, ENCRYPTION_KEY_TOO_SHORT))),
  },
  passwordSignIn: {
    name: 'POSTERN_PASSWORD_SIGN_IN',
    meaning: 'on or off: people may sign in with a password; off only with an identity provider (postern provider add)',
    fallback: 'on',
    schema: onOff,
  },
  registration: {
    name: 'POSTERN_REGISTRATION',
    meaning:
      'open: any client may register; token: with POSTERN_REGISTRATION_TOKEN; off: only an operator adds clients',
    fallback: 'open',
    schema: z.enum(['open', 'token', 'off'], { error: 'must be open, token or off' }),
  },
  registrationToken: {
    name: 'POSTERN_REGISTRATION_TOKEN',
    meaning: 'initial access token that registration demands; at least 16 characters',
    secret: true,
    schema: z.string().min(16, 'must have at least 16 characters'),
  },
  unusedClientSeconds: {
    name: 'POSTERN_UNUSED_CLIENT_SECONDS',
    meaning: 'a registered client that has no grant is removed after this time',
    fallback: String(DAY),
    schema: seconds(600, 365 * DAY),
  },
  redirectSchemes: {
    name: 'POSTERN_REDIRECT_SCHEMES',
    meaning: 'private-use redirect schemes without a dot that clients may register, separated by commas',
    fallback: 'cursor',
    schema: schemes,
  },
  metadataDocument: {
    name: 'POSTERN_METADATA_DOCUMENT',
    meaning: 'on or off: clients may be identified by the address of a metadata document instead of registering',
    fallback: 'on',
    schema: onOff,
  },
  metadataDocumentAllow: {
    name: 'POSTERN_METADATA_DOCUMENT_ALLOW',
    meaning: 'hosts whose documents alone are accepted, such as claude.ai,*.example.com; absent: all',
    schema: hosts,
  },
  metadataDocumentDeny: {
    name: 'POSTERN_METADATA_DOCUMENT_DENY',
    meaning: 'hosts whose documents are refused',
    schema: hosts,
  },
  metadataDocumentLoopback: {
    name: 'POSTERN_METADATA_DOCUMENT_LOOPBACK',
    meaning: 'on or off: for development, documents and keys may come from this machine, also over http',
    fallback: 'off',
    schema: onOff,
  },
  issParameter: {
    name: 'POSTERN_ISS_PARAMETER',
    meaning: 'on or off: iss in authorization responses (RFC 9207); off only for a client that breaks on it',
    fallback: 'on',
    schema: onOff,
  },
  name: {
    name: 'POSTERN_NAME',
    meaning: 'name of this service on its pages; at most 60 characters',
    fallback: 'Postern',
    schema: z.string().regex(/^(?=.*\S)[^\p{Cc}\p{Cf}]{1,60}$/u, 'must have 1 to 60 visible characters'),
  },
  logo: {
    name: 'POSTERN_LOGO_FILE',
    meaning: 'image for its pages: a file with an SVG, PNG, JPEG or WebP of at most 200 KB',
    schema: logo,
  },
  accentColor: {
    name: 'POSTERN_ACCENT_COLOR',
    meaning: 'colour of its pages, such as #0e5a4e; made darker or lighter where it could not be read',
    schema: z
      .string()
      .toLowerCase()
      .regex(/^#[0-9a-f]{6}$/, 'must be a colour such as #0e5a4e'),
  },
  errorUri: {
    name: 'POSTERN_ERROR_URI',
    meaning: 'page that explains errors; errors then carry error_uri with #code',
    schema: z
      .string()
      .regex(/^https?:\/\/[\x21\x23-\x5b\x5d-\x7e]+$/, 'must be an https or http URL')
      .refine((text) => URL.canParse(text) && !text.includes('#'), 'must be an https or http URL without a fragment'),
  },
  trustProxy: {
    name: 'POSTERN_TRUST_PROXY',
    meaning: 'proxies whose X-Forwarded-For is believed: a number of hops, or addresses and ranges',
    fallback: 'off',
    schema: proxies,
  },
  adminUsername: {
    name: 'POSTERN_ADMIN_USERNAME',
    meaning: 'first user, an administrator, created at start when there is no user',
    schema: z.string(),
  },
  adminPassword: {
    name: 'POSTERN_ADMIN_PASSWORD',
    meaning: 'password of that user',
    secret: true,
    schema: z.string(),
  },
} satisfies Partial<Record<keyof Config, Setting>>

/** Every problem with the environment at once, in words for an operator. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: string[]

  constructor(problems: string[]) {
    super(`Postern can't start with these settings:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`)
    this.problems = problems
  }
}

/**
 * Reads the configuration; the one place where the environment is read.
 *
 * @throws {ConfigError} with all problems: bad values, unknown POSTERN_ names, unreadable files
 */
export function readConfig(environment: NodeJS.ProcessEnv = process.env): Config {
  const problems = unknownNames(environment)
  const values: Record<string, unknown> = {}
  for (const [key, setting] of Object.entries<Setting>(SETTINGS)) {
    const given = key === 'issuer' ? { ...setting, fallback: defaultIssuer(environment) } : setting
    const text = readValue(given, environment, problems)
    if (text === undefined) continue
    const parsed = setting.schema.safeParse(text)
    if (parsed.success) values[key] = parsed.data
    else problems.push(`${setting.name} ${parsed.error.issues[0]?.message}`)
  }
  const isSet = (name: string) => Boolean(environment[name] || environment[`${name}_FILE`])
  if (values.registration === 'token' && !isSet('POSTERN_REGISTRATION_TOKEN')) {
    problems.push('POSTERN_REGISTRATION=token needs POSTERN_REGISTRATION_TOKEN or POSTERN_REGISTRATION_TOKEN_FILE')
  }
  if (isSet('POSTERN_ADMIN_USERNAME') !== isSet('POSTERN_ADMIN_PASSWORD')) {
    problems.push('POSTERN_ADMIN_USERNAME and POSTERN_ADMIN_PASSWORD (or POSTERN_ADMIN_PASSWORD_FILE) go together')
  }
  if (problems.length > 0) throw new ConfigError(problems)
  const basePath = new URL(values.issuer as string).pathname.replace(/\/$/, '')
  return { ...EMPTY, ...values, basePath } as Config
}

/** Says why a text can't be one of the lifetimes, by the same rules as for its setting; `undefined` when it can. */
export function lifetimeProblem(
  lifetime: 'accessTokenSeconds' | 'refreshTokenSeconds' | 'familySeconds' | 'refreshGraceSeconds',
  text: string,
): string | undefined {
  return SETTINGS[lifetime].schema.safeParse(text).error?.issues[0]?.message
}

/** The settings for `postern serve --help`: name, meaning and default. */
export function settingsHelp(): string {
  const width = Math.max(...Object.values<Setting>(SETTINGS).map((setting) => setting.name.length))
  return Object.values<Setting>(SETTINGS)
    .map((setting) => {
      const notes = [
        ...(setting.fallback === undefined ? [] : [`default ${setting.fallback}`]),
        ...(setting.secret ? [`or ${setting.name}_FILE names a file that holds it`] : []),
      ]
      return `  ${setting.name.padEnd(width)}  ${setting.meaning}${notes.length > 0 ? ` (${notes.join('; ')})` : ''}`
    })
    .join('\n')
}

const EMPTY = {
  databaseUrl: undefined,
  encryptionKey: undefined,
  decryptionKeys: [] as string[],
  registrationToken: undefined,
  metadataDocumentAllow: undefined,
  metadataDocumentDeny: [] as string[],
  logo: undefined,
  accentColor: undefined,
  errorUri: undefined,
  adminUsername: undefined,
  adminPassword: undefined,
}

/** An empty value counts as absent: compose files pass variables that nobody set. */
function readValue(setting: Setting, environment: NodeJS.ProcessEnv, problems: string[]): string | undefined {
  const direct = environment[setting.name] || undefined
  const fileName = setting.secret ? environment[`${setting.name}_FILE`] || undefined : undefined
  if (direct !== undefined && fileName !== undefined) {
    problems.push(`${setting.name} and ${setting.name}_FILE are both set: leave one out`)
    return undefined
  }
  if (fileName === undefined) return direct ?? setting.fallback
  try {
    const content = readFileSync(fileName, 'utf8').replace(/\r?\n$/, '')
    if (content === '') problems.push(`${setting.name}_FILE names an empty file`)
    return content || undefined
  } catch (error) {
    problems.push(`${setting.name}_FILE can't be read: ${(error as Error).message}`)
    return undefined
  }
}

/** Typing errors in names would otherwise go unseen. Kubernetes injects POSTERN_SERVICE_… and POSTERN_PORT… by itself. */
function unknownNames(environment: NodeJS.ProcessEnv): string[] {
  const known = new Set(
    Object.values<Setting>(SETTINGS).flatMap(({ name, secret }) => (secret ? [name, `${name}_FILE`] : [name])),
  )
  return Object.keys(environment)
    .filter((name) => name.startsWith('POSTERN_') && !/^POSTERN_(SERVICE_|PORT(_|$))/.test(name) && !known.has(name))
    .map((name) => `${name} is not a setting of Postern; postern serve --help lists them`)
}

function defaultIssuer(environment: NodeJS.ProcessEnv): string {
  const port = SETTINGS.port.schema.safeParse(environment.PORT || SETTINGS.port.fallback)
  return new URL(`http://localhost:${port.success ? port.data : SETTINGS.port.fallback}`).origin // :80 is left out
}

function issuerProblem(text: string): string | undefined {
  if (!URL.canParse(text)) return 'must be a URL such as https://auth.example.com'
  const url = new URL(text)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return 'must begin with https://'
  if (url.search !== '' || text.includes('#') || text.includes('?'))
    return 'must have no query and no fragment (RFC 8414 §2)'
  if (url.username !== '' || url.password !== '') return 'must hold no credentials'
  if (url.protocol === 'http:' && !['localhost', '127.0.0.1', '[::1]'].includes(url.hostname)) {
    return 'must begin with https://; http is for localhost alone'
  }
  if (text.endsWith('/')) return 'must have no trailing slash'
  if (!/^\/[A-Za-z0-9._~/-]*$/.test(url.pathname) || url.pathname.includes('//')) {
    return 'must have a plain path: letters, digits and . _ ~ - between single slashes'
  }
  const canonical = url.pathname === '/' ? url.origin : url.href
  return text === canonical ? undefined : `must be written as ${canonical}: clients compare it byte for byte`
}

function list(text: string): string[] {
  return text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')
}
