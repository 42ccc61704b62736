import { readdirSync, readFileSync } from 'node:fs'
import { join, posix } from 'node:path'
import t from 'tap'
import ts from 'typescript'

const ROOT = join(import.meta.dirname, '..', '..')

/** A source file as the rules see it: its path from the root, and its syntax. */
interface Source {
  path: string
  tree: ts.SourceFile
}

interface Import {
  /** a package, or the path of a file of ours from the root */
  target: string
  ours: boolean
  typeOnly: boolean
}

const sources = ['src', 'migrations'].flatMap(readSources)

/**
 * Floors of the house, the highest first: whoever stands on one may import from its own floor's folder and from
 * those below. Within the row of the middle, the order is this one too.
 */
const FLOORS = [
  ['cli.ts'],
  ['main.ts'],
  ['server.ts', 'admin'],
  ['endpoints', 'pages'],
  ['grants'],
  ['users'],
  ['clients'],
  ['keys'],
  ['tokens'],
  ['operations'],
  ['context.ts'],
  ['config.ts', 'start-error.ts'],
  ['store'],
  ['protocol', 'migrations', 'package.ts'],
]

/** It holds what the steps are given, so it names the types of what stands above it; but it runs nothing. */
const CONTEXT = 'src/context.ts'

/** What several endpoints, pages or grants share; the others never import each other. */
const SHARED: Record<string, string[]> = {
  endpoints: ['answer-error.ts', 'cross-origin.ts'],
  pages: [
    'accent.ts',
    'account-page.ts',
    'authorization.ts',
    'browser.ts',
    'looks.ts',
    'next-page.ts',
    'page.ts',
    'sign-in-form.ts',
    'texts.ts',
  ],
  grants: ['grant.ts', 'new-family.ts'],
}

/** The table of grants: it imports them all. */
const TABLE_OF_GRANTS = 'src/grants/index.ts'

/** Beside store/ and migrations/, these name the type of the handle that they hold or hand on. */
const HOLD_KYSELY = ['src/context.ts', 'src/main.ts']

/** A grant is stored under its own noun, but for those whose stored unit is another. */
const STORED_AS: Record<string, string> = {
  'refresh-token': 'token-family',
  'client-credentials': 'access-token',
  'token-exchange': 'resource-upstream',
}

/** A grant that has no rules beside those of scopes and resources. */
const WITHOUT_RULES: readonly string[] = ['client-credentials']

/** Where each of these is read; everybody else is given it. */
const READ_ONLY_IN: { what: string; where: string[]; reads: (node: ts.Node) => boolean }[] = [
  // the database's clock counts: doctor compares the two, and keys of rows begin with the minute for their order alone
  { what: 'the clock', where: ['src/admin/doctor.ts', 'src/tokens/secret.ts'], reads: readsClock },
  { what: 'randomness', where: ['src/tokens/secret.ts'], reads: readsRandomness },
  { what: 'the environment', where: ['src/config.ts'], reads: readsEnvironment },
]

t.test('imports point down only, and never sideways between two endpoints, pages or grants', async (t) => {
  t.same(
    sources.flatMap((source) => [...fromAbove(source), ...sideways(source)]),
    [],
  )
})

t.test('HTTP and SQL stay in their folders, and the rules of protocol/ have node:crypto alone', async (t) => {
  t.same(sources.flatMap(foreign), [])
})

t.test('the clock, randomness and the environment are read nowhere but where the table says', async (t) => {
  t.same(sources.flatMap(reads), [])
})

t.test('only the layout puts text into a page as it is', async (t) => {
  const views = readdirSync(join(ROOT, 'views'), { recursive: true, encoding: 'utf8' })
  const sentence = /<%~ include\('\.\/sentence', \{/g // a template that escapes for itself
  const raw = views.filter((name) =>
    /<%[-_]?\s*~/.test(readFileSync(join(ROOT, 'views', name), 'utf8').replace(sentence, '')),
  )
  t.same(raw, ['layout.eta'])
})

t.test('the same noun names the file of a grant in grants/, protocol/ and store/', async (t) => {
  const files = new Set(sources.map(({ path }) => path))
  const grants = [...files].filter((path) => folderOf(path) === 'grants' && path !== TABLE_OF_GRANTS)
  const nouns = grants
    .map((path) => posix.basename(path, '.ts'))
    .filter((noun) => !SHARED.grants?.includes(`${noun}.ts`))
  t.ok(nouns.length > 0)
  for (const noun of nouns) {
    t.ok(WITHOUT_RULES.includes(noun) || files.has(`src/protocol/${noun}.ts`), `protocol/${noun}.ts`)
    t.ok(files.has(`src/store/${STORED_AS[noun] ?? noun}.ts`), `store/${STORED_AS[noun] ?? noun}.ts`)
  }
})

t.test('each rule finds what breaks it', async (t) => {
  const breaking: [string, string, RegExp][] = [
    ['src/store/x.ts', `import { signIn } from '../users/sign-in.ts'`, /not below/],
    ['src/store/x.ts', `import type { Context } from '../context.ts'`, /not below/],
    ['src/protocol/x.ts', `export * from '../tokens/secret.ts'`, /not below/],
    ['src/tokens/x.ts', `const grants = await import('../grants/index.ts')`, /not below/],
    ['src/endpoints/x.ts', `import { login } from '../pages/login.ts'`, /not below/],
    ['src/context.ts', `import { createPasswordHasher } from './users/password.ts'`, /not below/],
    ['migrations/x.ts', `import { hasUser } from '../src/store/user.ts'`, /not below/],
    ['src/endpoints/x.ts', `import { token } from './token.ts'`, /beside/],
    ['src/pages/x.ts', `import { login } from './login.ts'`, /beside/],
    ['src/grants/x.ts', `import { refreshToken } from './refresh-token.ts'`, /beside/],
    ['src/users/x.ts', `import type { FastifyRequest } from 'fastify'`, /HTTP/],
    ['src/main.ts', `import cookie from '@fastify/cookie'`, /HTTP/],
    ['src/main.ts', `import { type Kysely, sql } from 'kysely'`, /SQL/],
    ['src/grants/x.ts', `import type { Kysely } from 'kysely'`, /SQL/],
    ['src/pages/x.ts', `await context.db.selectFrom('user').execute()`, /SQL/],
    ['src/protocol/x.ts', `import { readFileSync } from 'node:fs'`, /node:crypto alone/],
    ['src/protocol/x.ts', `import { z } from 'zod'`, /node:crypto alone/],
    ['src/users/x.ts', `const now = new Date()`, /clock/],
    ['src/users/x.ts', `const now = Date.now()`, /clock/],
    ['src/users/x.ts', `const now = globalThis.performance.timeOrigin`, /clock/],
    ['src/users/x.ts', `const now = process.hrtime.bigint()`, /clock/],
    ['src/users/x.ts', `import { randomBytes as bytes } from 'node:crypto'`, /randomness/],
    ['src/users/x.ts', `const id = crypto.randomUUID()`, /randomness/],
    ['src/users/x.ts', `const n = Math.random()`, /randomness/],
    ['src/users/x.ts', `const { PORT } = process.env`, /environment/],
    ['src/users/x.ts', `import { env } from 'node:process'`, /environment/],
  ]
  for (const [path, text, violation] of breaking) t.match(violationsOf(parse(path, text)).join(), violation, text)
  const keeping: [string, string][] = [
    ['src/context.ts', `import type { PasswordHasher } from './users/password.ts'`],
    ['src/main.ts', `import type { Kysely } from 'kysely'`],
    ['src/pages/x.ts', `import { sendPage } from './page.ts'`],
    ['src/grants/index.ts', `import { refreshToken } from './refresh-token.ts'`],
    ['src/store/x.ts', `const at = new Date(row.createdAt)`],
  ]
  for (const [path, text] of keeping) t.same(violationsOf(parse(path, text)), [], text)
})

/** Every rule, over one file. */
function violationsOf(source: Source): string[] {
  return [fromAbove, sideways, foreign, reads].flatMap((rule) => rule(source))
}

function fromAbove(source: Source): string[] {
  const { path } = source
  return importsOf(source)
    .filter(({ ours, typeOnly }) => ours && !(path === CONTEXT && typeOnly))
    .filter(({ target }) => folderOf(target) !== folderOf(path) && floorOf(target) <= floorOf(path))
    .map(({ target }) => `${path} imports ${target}, which is not below it`)
}

function sideways(source: Source): string[] {
  const { path } = source
  if (path === TABLE_OF_GRANTS) return []
  const folder = folderOf(path)
  const shared = SHARED[folder]
  if (shared === undefined) return []
  return importsOf(source)
    .filter(({ target, ours }) => ours && folderOf(target) === folder && !shared.includes(posix.basename(target)))
    .map(({ target }) => `${path} imports ${target}, which stands beside it`)
}

function foreign(source: Source): string[] {
  const { path, tree } = source
  const folder = folderOf(path)
  const found: string[] = []
  for (const { target, ours, typeOnly } of importsOf(source)) {
    if (ours) continue
    if (/^(fastify|@fastify\/.*)$/.test(target) && !['server.ts', 'endpoints', 'pages'].includes(folder)) {
      found.push(`${path} imports ${target}: HTTP is for server.ts, endpoints/ and pages/`)
    }
    const holds = HOLD_KYSELY.includes(path) && typeOnly
    if (/^(kysely|pg)(\/|$)/.test(target) && !['store', 'migrations'].includes(folder) && !holds) {
      found.push(`${path} imports ${target}: SQL is for store/ and migrations/`)
    }
    if (folder === 'protocol' && target !== 'node:crypto') {
      found.push(`${path} imports ${target}: protocol/ has node:crypto alone`)
    }
  }
  const builds = /^(selectFrom|insertInto|updateTable|deleteFrom|replaceInto|mergeInto|executeQuery)$/
  if (!['store', 'migrations'].includes(folder) && contains(tree, (node) => memberOf(node, undefined, builds))) {
    found.push(`${path} builds a query: SQL is for store/ and migrations/`)
  }
  return found
}

function reads({ path, tree }: Source): string[] {
  return READ_ONLY_IN.filter(({ where, reads }) => !where.includes(path) && contains(tree, reads)).map(
    ({ what, where }) => `${path} reads ${what}: that is for ${where.join(' and ')}`,
  )
}

function readsClock(node: ts.Node): boolean {
  const makesNow =
    (ts.isNewExpression(node) && node.expression.getText() === 'Date' && !node.arguments?.length) ||
    (ts.isCallExpression(node) && node.expression.getText() === 'Date')
  return (
    makesNow ||
    memberOf(node, 'Date', /^now$/) ||
    memberOf(node, 'performance', /^timeOrigin$/) || // its `now` can only tell how long something took
    memberOf(node, 'process', /^(hrtime|uptime)$/)
  )
}

function readsRandomness(node: ts.Node): boolean {
  const words = /^(randomBytes|randomUUID|randomInt|randomFill|randomFillSync|getRandomValues)$/
  const imported =
    ts.isImportSpecifier(node) &&
    words.test((node.propertyName ?? node.name).text) &&
    /^(node:)?crypto$/.test(moduleOf(node))
  return imported || memberOf(node, 'Math', /^random$/) || memberOf(node, undefined, words)
}

function readsEnvironment(node: ts.Node): boolean {
  const imported = ts.isImportSpecifier(node) && node.name.text === 'env' && /^(node:)?process$/.test(moduleOf(node))
  return imported || memberOf(node, 'process', /^(env|loadEnvFile)$/)
}

/** Whether a node is `object.name`; any object when it isn't given. */
function memberOf(node: ts.Node, object: string | undefined, name: RegExp): boolean {
  if (!ts.isPropertyAccessExpression(node) || !name.test(node.name.text)) return false
  return object === undefined || node.expression.getText().replace(/^globalThis\./, '') === object
}

function moduleOf(specifier: ts.ImportSpecifier): string {
  return (specifier.parent.parent.parent.moduleSpecifier as ts.StringLiteral).text
}

function contains(node: ts.Node, matches: (node: ts.Node) => boolean): boolean {
  return matches(node) || (ts.forEachChild(node, (child) => contains(child, matches)) ?? false)
}

/** All imports of a file: of values and types, re-exports, and `import()` of a fixed name. */
function importsOf({ path, tree }: Source): Import[] {
  const found: Import[] = []
  const add = (name: string, typeOnly: boolean) => {
    const ours = name.startsWith('.')
    found.push({ target: ours ? posix.join(posix.dirname(path), name) : name, ours, typeOnly })
  }
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) {
      const clause = node.importClause
      const bindings = clause?.namedBindings
      const elements = bindings !== undefined && ts.isNamedImports(bindings) ? [...bindings.elements] : []
      const onlyTypes = elements.length > 0 && elements.every((one) => one.isTypeOnly) && clause?.name === undefined
      const typeOnly = clause?.phaseModifier === ts.SyntaxKind.TypeKeyword || onlyTypes
      add((node.moduleSpecifier as ts.StringLiteral).text, typeOnly)
    } else if (ts.isExportDeclaration(node) && node.moduleSpecifier !== undefined) {
      add((node.moduleSpecifier as ts.StringLiteral).text, node.isTypeOnly)
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [name] = node.arguments
      if (name !== undefined && ts.isStringLiteralLike(name)) add(name.text, false)
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      add((node.argument.literal as ts.StringLiteral).text, true)
    }
    ts.forEachChild(node, visit)
  }
  visit(tree)
  return found
}

function floorOf(path: string): number {
  const floor = FLOORS.findIndex((folders) => folders.includes(folderOf(path)))
  if (floor === -1) throw new Error(`${path} stands on no floor: say in FLOORS which one`)
  return floor
}

/** The folder below src/ that a file is in, or its name when it is in src/ itself. */
function folderOf(path: string): string {
  const [top = '', second = ''] = path.split('/')
  return top === 'src' ? second : top
}

function readSources(folder: string): Source[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => {
      const path = posix.join(folder, name.replaceAll('\\', '/'))
      return parse(path, readFileSync(join(ROOT, path), 'utf8'))
    })
}

function parse(path: string, text: string): Source {
  return { path, tree: ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true) }
}
