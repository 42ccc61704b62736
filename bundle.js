/**
 * Puts packages that have hundreds of modules into a file each, below dist/node_modules, where Node.js looks for them
 * first: to load those modules one by one takes a fifth of a start (docs/decisions/0018).
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { build } from 'esbuild'

/** What is imported of each. */
const PACKAGES = { kysely: ['.', './migration'], zod: ['.'] }

for (const [name, paths] of Object.entries(PACKAGES)) {
  const folder = join(import.meta.dirname, 'dist', 'node_modules', name)
  const entries = paths.map((path) => ({ path, out: join('.', path, 'index') }))
  await build({
    absWorkingDir: import.meta.dirname,
    entryPoints: entries.map(({ path, out }) => ({ in: join(name, path), out })),
    bundle: true,
    splitting: true, // what both entries need is one module, not two
    format: 'esm',
    platform: 'node',
    target: 'node20',
    outdir: folder,
    logLevel: 'warning',
  })
  const exports = Object.fromEntries(entries.map(({ path, out }) => [path, `./${out}.js`]))
  await writeFile(join(folder, 'package.json'), JSON.stringify({ type: 'module', exports }))
}
