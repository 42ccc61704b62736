import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { type Config, ConfigError, readConfig, settingsHelp } from '../src/config.ts'

const folder = mkdtempSync(join(tmpdir(), 'postern-config-'))
t.teardown(() => rmSync(folder, { recursive: true }))

/** A setting: what it is when nothing is set, and what it makes of texts. */
interface Example {
  key: keyof Config
  byDefault: unknown
  good: [string, unknown][]
  bad: [string, string][]
}

/** The beginning of a PNG image. */
const PNG = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1')

/** The least that counts as an image, by its type. */
const LOGOS = {
  'image/png': PNG,
  'image/jpeg': Buffer.from('\xff\xd8\xff\xe0', 'latin1'),
  'image/webp': Buffer.from('RIFF\x01\x02\x03\nWEBPVP8 ', 'latin1'),
  'image/svg+xml': Buffer.from('\ufeff<?xml version="1.0"?>\n<!-- a logo -->\n<!DOCTYPE svg>\n<svg ></svg>'),
}

let files = 0
/** A file with this content. */
function file(content: Buffer): string {
  files += 1
  const path = join(folder, `file${files}`)
  writeFileSync(path, content)
  return path
}

const DAY = 86_400

function seconds(key: keyof Config, byDefault: number, least: number, most: number): Example {
  return {
    key,
    byDefault,
    good: [
      [String(least), least],
      [String(most), most],
      [`0${least}`, least],
    ],
    bad: [
      [String(most + 1), `must be at most ${most} seconds`],
      ...(least === 0 ? [] : [[String(least - 1), `must be at least ${least} seconds`] as [string, string]]),
      ...['-1', '1.5', '1e3', '1h', ' 60', '9999999999'].map((text): [string, string] => [
        text,
        'must be a whole number of seconds',
      ]),
    ],
  }
}

function hosts(key: keyof Config, byDefault: unknown): Example {
  return {
    key,
    byDefault,
    good: [
      ['claude.ai, *.example.com ,', ['claude.ai', '*.example.com']],
      ['localhost,127.0.0.1,xn--e1afmkfd.example', ['localhost', '127.0.0.1', 'xn--e1afmkfd.example']],
    ],
    bad: [
      ...['https://claude.ai', 'Claude.ai', 'claude.ai/', 'a:443', '.a', 'a.'],
      ...['*', '*.', '*claude.ai', 'a.*.example'],
    ].map((text) => [text, HOSTS]),
  }
}

function oneOf(key: keyof Config, byDefault: unknown, words: [string, unknown][], sentence: string): Example {
  return {
    key,
    byDefault,
    good: words,
    bad: [
      ['yes', sentence],
      ['ON', sentence],
      ['open ', sentence],
    ],
  }
}

const HOSTS = 'must be host names in lower case, such as claude.ai or *.example.com'
const PROXIES = 'must be off, a number of proxies, or addresses and ranges such as 10.0.0.0/8,fd00::/8'
const WEB = 'must be an https or http URL'

const SETTINGS: Record<string, Example> = {
  ISSUER: {
    key: 'issuer',
    byDefault: 'http://localhost:3000',
    good: [
      ['https://auth.example.com', 'https://auth.example.com'],
      ['https://example.com:8443/a/b-c_d.e~f', 'https://example.com:8443/a/b-c_d.e~f'],
      ['http://127.0.0.1:8080', 'http://127.0.0.1:8080'],
      ['http://[::1]', 'http://[::1]'],
      ['http://localhost/auth', 'http://localhost/auth'],
    ],
    bad: [
      ['auth.example.com', 'must be a URL such as https://auth.example.com'],
      ['https://', 'must be a URL such as https://auth.example.com'],
      ['ftp://example.com', 'must begin with https://'],
      ['http://example.com', 'must begin with https://; http is for localhost alone'],
      ['http://localhost.example.com', 'must begin with https://; http is for localhost alone'],
      ['https://example.com/', 'must have no trailing slash'],
      ['https://example.com/auth/', 'must have no trailing slash'],
      ['https://example.com?', 'must have no query and no fragment (RFC 8414 §2)'],
      ['https://example.com/a?b=c', 'must have no query and no fragment (RFC 8414 §2)'],
      ['https://example.com#', 'must have no query and no fragment (RFC 8414 §2)'],
      ['https://user@example.com', 'must hold no credentials'],
      ['https://example.com/a//b', 'must have a plain path: letters, digits and . _ ~ - between single slashes'],
      ['https://example.com/a%20b', 'must have a plain path: letters, digits and . _ ~ - between single slashes'],
      ['https://example.com/:a', 'must have a plain path: letters, digits and . _ ~ - between single slashes'],
      ['https://example.com/*', 'must have a plain path: letters, digits and . _ ~ - between single slashes'],
      ...['https://Example.com', 'https://example.com:443', ' https://example.com'].map((text): [string, string] => [
        text,
        'must be written as https://example.com: clients compare it byte for byte',
      ]),
      ['https://example.com/a/../b', 'must be written as https://example.com/b: clients compare it byte for byte'],
    ],
  },
  PORT: {
    key: 'port',
    byDefault: 3000,
    good: [
      ['1', 1],
      ['65535', 65_535],
    ],
    bad: ['0', '65536', '-1', 'http', '123456'].map((text) => [text, 'must be a port number']),
  },
  HOST: { key: 'host', byDefault: 'localhost', good: [['0.0.0.0', '0.0.0.0']], bad: [] },
  DATABASE_URL: {
    key: 'databaseUrl',
    byDefault: undefined,
    good: ['postgres://user:password@db/postern', 'postgresql:///postern?host=/run'].map((text) => [text, text]),
    bad: ['mysql://db/postern', 'postgres://', 'db:5432'].map((text) => [
      text,
      'must begin with postgres:// or postgresql://',
    ]),
  },
  DATA_DIR: { key: 'dataDirectory', byDefault: './data', good: [['/var/lib/postern', '/var/lib/postern']], bad: [] },
  LOG_LEVEL: oneOf(
    'logLevel',
    'info',
    ['trace', 'debug', 'warn', 'error', 'fatal', 'silent'].map((word) => [word, word]),
    'must be trace, debug, info, warn, error, fatal or silent',
  ),
  POSTERN_ACCESS_TOKEN_SECONDS: seconds('accessTokenSeconds', 3600, 30, DAY),
  POSTERN_REFRESH_TOKEN_SECONDS: seconds('refreshTokenSeconds', 30 * DAY, 60, 3650 * DAY),
  POSTERN_FAMILY_SECONDS: seconds('familySeconds', 365 * DAY, 60, 3650 * DAY),
  POSTERN_REFRESH_GRACE_SECONDS: seconds('refreshGraceSeconds', 120, 0, 3600),
  POSTERN_CODE_SECONDS: seconds('codeSeconds', 60, 5, 600),
  POSTERN_SESSION_SECONDS: seconds('sessionSeconds', DAY / 2, 60, 365 * DAY),
  POSTERN_SIGNING_ALGORITHM: oneOf(
    'signingAlgorithm',
    'ES256',
    ['ES256', 'EdDSA', 'RS256'].map((word) => [word, word]),
    'must be ES256, EdDSA or RS256',
  ),
  POSTERN_SIGNING_KEY_SECONDS: seconds('signingKeySeconds', 90 * DAY, 3600, 3650 * DAY),
  POSTERN_ENCRYPTION_KEY: {
    key: 'encryptionKey',
    byDefault: undefined,
    good: [['0123456789abcdef0123456789abcdef', '0123456789abcdef0123456789abcdef']],
    bad: [['0123456789abcdef0123456789abcde', 'must have at least 32 characters: openssl rand -base64 32 makes some']],
  },
  POSTERN_DECRYPTION_KEYS: {
    key: 'decryptionKeys',
    byDefault: [],
    good: [', ', '\n', ',\r\n'].map((between) => [
      `${'a'.repeat(32)}${between}${'b'.repeat(40)}`,
      ['a'.repeat(32), 'b'.repeat(40)],
    ]),
    bad: [[`${'a'.repeat(32)},b`, 'must have at least 32 characters: openssl rand -base64 32 makes some']],
  },
  POSTERN_PASSWORD_SIGN_IN: oneOf(
    'passwordSignIn',
    true,
    [
      ['on', true],
      ['off', false],
    ],
    'must be on or off',
  ),
  POSTERN_REGISTRATION: oneOf(
    'registration',
    'open',
    [
      ['open', 'open'],
      ['off', 'off'],
    ],
    'must be open, token or off',
  ),
  POSTERN_REGISTRATION_TOKEN: {
    key: 'registrationToken',
    byDefault: undefined,
    good: [['0123456789abcdef', '0123456789abcdef']],
    bad: [['0123456789abcde', 'must have at least 16 characters']],
  },
  POSTERN_UNUSED_CLIENT_SECONDS: seconds('unusedClientSeconds', DAY, 600, 365 * DAY),
  POSTERN_REDIRECT_SCHEMES: {
    key: 'redirectSchemes',
    byDefault: ['cursor'],
    good: [
      ['cursor, zed ,', ['cursor', 'zed']],
      [',', []],
    ],
    bad: ['Cursor', 'a b', 'cursor://', '1a'].map((text) => [
      text,
      'must be URI schemes in lower case, such as cursor',
    ]),
  },
  POSTERN_METADATA_DOCUMENT: oneOf(
    'metadataDocument',
    true,
    [
      ['on', true],
      ['off', false],
    ],
    'must be on or off',
  ),
  POSTERN_METADATA_DOCUMENT_ALLOW: hosts('metadataDocumentAllow', undefined),
  POSTERN_METADATA_DOCUMENT_DENY: hosts('metadataDocumentDeny', []),
  POSTERN_METADATA_DOCUMENT_LOOPBACK: oneOf(
    'metadataDocumentLoopback',
    false,
    [
      ['on', true],
      ['off', false],
    ],
    'must be on or off',
  ),
  POSTERN_ISS_PARAMETER: oneOf(
    'issParameter',
    true,
    [
      ['on', true],
      ['off', false],
    ],
    'must be on or off',
  ),
  POSTERN_NAME: {
    key: 'name',
    byDefault: 'Postern',
    good: ['Example & Söhne', 'x', '\u{1F600}'.repeat(60)].map((text) => [text, text]),
    bad: ['x'.repeat(61), ' ', 'a\nb', '\u200b'].map((text) => [text, 'must have 1 to 60 visible characters']),
  },
  POSTERN_LOGO_FILE: {
    key: 'logo',
    byDefault: undefined,
    good: Object.entries(LOGOS).map(([type, content]) => [
      file(content),
      `data:${type};base64,${content.toString('base64')}`,
    ]),
    bad: [
      ...['', '<html><svg></svg></html>', 'GIF89a', 'RIFFxxxxWAVE', '<svgx>'].map((text): [string, string] => [
        file(Buffer.from(text)),
        'must name an SVG, PNG, JPEG or WebP image',
      ]),
      [file(Buffer.concat([PNG, Buffer.alloc(200 * 1024)])), 'must name an image of at most 200 KB'],
      [join(folder, 'none'), `can't be read: ENOENT: no such file or directory, open '${join(folder, 'none')}'`],
    ],
  },
  POSTERN_ACCENT_COLOR: {
    key: 'accentColor',
    byDefault: undefined,
    good: [
      ['#0e5a4e', '#0e5a4e'],
      ['#C0FFEE', '#c0ffee'],
    ],
    bad: ['red', '#fff', '0e5a4e', '#0e5a4e;', '#0e5a4g'].map((text) => [text, 'must be a colour such as #0e5a4e']),
  },
  POSTERN_ERROR_URI: {
    key: 'errorUri',
    byDefault: undefined,
    good: [['https://docs.example.com/errors?lang=en', 'https://docs.example.com/errors?lang=en']],
    bad: [
      ['docs.example.com', WEB],
      ['https://a b', WEB],
      ['https://a/"', WEB],
      ['https://a/#b', `${WEB} without a fragment`],
    ],
  },
  POSTERN_TRUST_PROXY: {
    key: 'trustProxy',
    byDefault: false,
    good: [
      ['off', false],
      ['0', false],
      ['2', 2],
      ['10.0.0.0/8, fd00::/8', ['10.0.0.0/8', 'fd00::/8']],
      ['192.0.2.1', ['192.0.2.1']],
    ],
    bad: ['on', 'loopback', '100', '10/8', '10.0.0.0/33', 'fd00::/129', '-1', ','].map((text) => [text, PROXIES]),
  },
}

t.test('every setting has its default, takes what is good, and says what is wrong with what is not', async (t) => {
  for (const [name, { key, byDefault, good, bad }] of Object.entries(SETTINGS)) {
    t.same(readConfig({})[key], byDefault, `${name} by default`)
    t.same(readConfig({ [name]: '' })[key], byDefault, `${name} empty counts as absent`)
    for (const [text, value] of good) t.same(readConfig({ [name]: text })[key], value, `${name}=${text}`)
    for (const [text, sentence] of bad) t.same(problemsOf({ [name]: text }), [`${name} ${sentence}`], `${name}=${text}`)
  }
})

t.test('no setting is without a test', async (t) => {
  const named = [...settingsHelp().matchAll(/^ {2}([A-Z_]+) /gm)].map(([, name]) => name)
  t.same(named, [...Object.keys(SETTINGS), 'POSTERN_ADMIN_USERNAME', 'POSTERN_ADMIN_PASSWORD'])
})

t.test('the help names defaults and files', async (t) => {
  t.match(settingsHelp(), /^ {2}PORT +port to listen on \(default 3000\)$/m)
  t.match(settingsHelp(), /^ {2}POSTERN_ERROR_URI +page that explains errors; [^(]+$/m)
  t.match(settingsHelp(), /^ {2}DATABASE_URL .* \(or DATABASE_URL_FILE names a file that holds it\)$/m)
})

t.test('all problems are told at once', async (t) => {
  const environment = { PORT: 'x', LOG_LEVEL: 'x', POSTERN_TYPO: '1', POSTERN_REGISTRATION: 'token' }
  const problems = [
    'POSTERN_TYPO is not a setting of Postern; postern serve --help lists them',
    'PORT must be a port number',
    'LOG_LEVEL must be trace, debug, info, warn, error, fatal or silent',
    'POSTERN_REGISTRATION=token needs POSTERN_REGISTRATION_TOKEN or POSTERN_REGISTRATION_TOKEN_FILE',
  ]
  t.same(problemsOf(environment), problems)
  const text = `Postern can't start with these settings:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`
  t.throws(() => readConfig(environment), { name: 'ConfigError', message: text })
})

t.test('an unknown POSTERN_ name is an error, also when it is empty', async (t) => {
  for (const name of [
    'POSTERN_',
    'POSTERN_SESSION_SECOND',
    'POSTERN_session_seconds',
    'POSTERN_PORTS',
    'POSTERN_SERVICES',
  ]) {
    const expected = [`${name} is not a setting of Postern; postern serve --help lists them`]
    t.same(problemsOf({ [name]: '' }), expected)
  }
  t.same(problemsOf({ POSTERN_SESSION_SECONDS_FILE: '/x' }).length, 1, 'only secrets come from files')
})

t.test('names that Kubernetes injects for a service called postern, and names of others, are ignored', async (t) => {
  const injected = {
    POSTERN_SERVICE_HOST: '10.0.0.1',
    POSTERN_SERVICE_PORT: '3000',
    POSTERN_SERVICE_PORT_HTTP: '3000',
    POSTERN_PORT: 'tcp://10.0.0.1:3000',
    POSTERN_PORT_3000_TCP: 'tcp://10.0.0.1:3000',
    POSTERN_PORT_3000_TCP_ADDR: '10.0.0.1',
  }
  t.same(readConfig({ ...injected, PATH: '/bin', XPOSTERN_X: '1' }), readConfig({}))
})

t.test('the issuer follows the port, and the base path the issuer', async (t) => {
  t.equal(readConfig({ PORT: '8080' }).issuer, 'http://localhost:8080')
  t.equal(readConfig({ PORT: '80' }).issuer, 'http://localhost', 'as clients write it')
  t.equal(readConfig({ PORT: '8080', ISSUER: 'https://example.com' }).issuer, 'https://example.com')
  t.same(problemsOf({ PORT: '65536' }), ['PORT must be a port number'], 'and the issuer is not blamed')
  t.equal(readConfig({ ISSUER: 'https://example.com' }).basePath, '')
  t.equal(readConfig({ ISSUER: 'https://example.com/auth/one' }).basePath, '/auth/one')
})

t.test('settings that need each other are told so', async (t) => {
  const together = 'POSTERN_ADMIN_USERNAME and POSTERN_ADMIN_PASSWORD (or POSTERN_ADMIN_PASSWORD_FILE) go together'
  t.same(problemsOf({ POSTERN_ADMIN_USERNAME: 'root' }), [together])
  t.same(problemsOf({ POSTERN_ADMIN_PASSWORD: 'secret' }), [together])
  const both = { POSTERN_ADMIN_USERNAME: 'root', POSTERN_ADMIN_PASSWORD: 'secret' }
  t.match(readConfig(both), { adminUsername: 'root', adminPassword: 'secret' })
  const token = '0123456789abcdef'
  const config = readConfig({ POSTERN_REGISTRATION: 'token', POSTERN_REGISTRATION_TOKEN: token })
  t.match(config, { registration: 'token', registrationToken: token })
  t.same(
    problemsOf({ POSTERN_REGISTRATION: 'token', POSTERN_REGISTRATION_TOKEN: 'short' }),
    ['POSTERN_REGISTRATION_TOKEN must have at least 16 characters'],
    'one that is wrong is not missing as well',
  )
})

t.test('each secret may come from a file, without the line break at its end', async (t) => {
  const file = join(folder, 'secret')
  const secrets = {
    DATABASE_URL: 'databaseUrl',
    POSTERN_ENCRYPTION_KEY: 'encryptionKey',
    POSTERN_REGISTRATION_TOKEN: 'registrationToken',
  } as const
  for (const [name, key] of Object.entries(secrets)) {
    const secret = 'postgres://user:pass word @db/postern '
    for (const end of ['', '\n', '\r\n']) {
      writeFileSync(file, secret + end)
      t.equal(readConfig({ [`${name}_FILE`]: file })[key], secret)
      t.equal(readConfig({ [`${name}_FILE`]: file, [name]: '' })[key], secret, 'an empty value counts as absent')
    }
  }
  writeFileSync(file, 'secret\n\n')
  const admin = readConfig({ POSTERN_ADMIN_USERNAME: 'root', POSTERN_ADMIN_PASSWORD_FILE: file })
  t.equal(admin.adminPassword, 'secret\n', 'one line break, and no more')
})

t.test('a file that gives no secret is a problem, and the message holds none', async (t) => {
  const file = join(folder, 'other')
  const missing = join(folder, 'missing')
  writeFileSync(file, '\n')
  t.same(problemsOf({ DATABASE_URL_FILE: file }), ['DATABASE_URL_FILE names an empty file'])
  t.match(problemsOf({ DATABASE_URL_FILE: missing }), [/^DATABASE_URL_FILE can't be read: ENOENT.*missing'$/])
  t.match(problemsOf({ DATABASE_URL_FILE: folder }), [/^DATABASE_URL_FILE can't be read: EISDIR/])
  const both = { DATABASE_URL: 'postgres://user:secret@db/postern', DATABASE_URL_FILE: file }
  t.same(problemsOf(both), ['DATABASE_URL and DATABASE_URL_FILE are both set: leave one out'])
  writeFileSync(file, 'mysql://user:secret@db')
  t.same(problemsOf({ DATABASE_URL_FILE: file }), ['DATABASE_URL must begin with postgres:// or postgresql://'])
  const admin = { POSTERN_ADMIN_USERNAME: 'root', POSTERN_ADMIN_PASSWORD_FILE: missing }
  t.match(
    problemsOf(admin),
    [/^POSTERN_ADMIN_PASSWORD_FILE can't be read/],
    'a file that is missing was set all the same',
  )
})

/** Every problem that an environment has; none when it can be used. */
function problemsOf(environment: NodeJS.ProcessEnv): string[] {
  try {
    readConfig(environment)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
}
