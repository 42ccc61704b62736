import { readFileSync } from 'node:fs'
import { join } from 'node:path'

// Compiled, this file lies in dist/src, and so does what it is bundled into (bundle.js): the folders are found from there.
const PACKAGE = join(import.meta.dirname, '..', '..')

/** The version in package.json. */
export const VERSION: string = JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8')).version

/** The folder of the templates. */
export const VIEWS = join(PACKAGE, 'views')

/** The folder of the compiled migrations. */
export const MIGRATIONS = join(PACKAGE, 'dist', 'migrations')
