import { execFile } from 'node:child_process'
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import type { createServer } from '../../src/server.ts'
import { post } from '../support/flow.ts'
import { addClient, freePort, startTestPostern } from '../support/postern.ts'

const ROOT = join(import.meta.dirname, '..', '..', '..')

/** The code blocks of CONTRIBUTING.md in a language, without their indentation. */
function blocks(text: string, language: string): string[] {
  const fenced = new RegExp(`^( *)\`\`\`${language}\\n([\\s\\S]*?)\\n\\1\`\`\``, 'gm')
  return [...text.matchAll(fenced)].map(([, indent = '', code = '']) =>
    code.replaceAll(`\n${indent}`, '\n').slice(indent.length),
  )
}

/** Inserts the added lines of a diff, each after the line that stands before it. */
function applyDiff(text: string, diff: string): string {
  const lines = text.split('\n')
  let position = -1
  for (const line of diff.split('\n')) {
    if (line.startsWith('+')) {
      position += 1
      lines.splice(position, 0, line.slice(1))
    } else {
      position = lines.indexOf(line.slice(1))
      if (position < 0) throw new Error(`the table of grants has no line "${line.slice(1)}"`)
    }
  }
  return lines.join('\n')
}

t.test('a grant is added as CONTRIBUTING.md says: one file, one row', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'postern-recipe-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  for (const part of ['src', 'migrations', 'views', 'package.json', 'tsconfig.json']) {
    await cp(join(ROOT, part), join(folder, part), { recursive: true })
  }
  await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'))

  const recipe = await readFile(join(ROOT, 'CONTRIBUTING.md'), 'utf8')
  const [grant = ''] = blocks(recipe, 'ts')
  const [diff = ''] = blocks(recipe, 'diff')
  const [, file = ''] = /^\/\/ (\S+)\n/.exec(grant) ?? []
  await writeFile(join(folder, file), grant)
  const table = join(folder, 'src', 'grants', 'index.ts')
  await writeFile(table, applyDiff(await readFile(table, 'utf8'), diff))
  await promisify(execFile)(process.execPath, [join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', folder])

  const original = await startTestPostern(t)
  const built: { createServer: typeof createServer } = await import(
    pathToFileURL(join(folder, 'dist', 'src', 'server.js')).href
  )
  const port = await freePort()
  const server = await built.createServer(original.context)
  t.teardown(() => server.close())
  await server.listen({ host: '127.0.0.1', port })
  const postern = { issuer: `http://localhost:${port}` }

  const kiosk = 'urn:example:grant-type:kiosk'
  const metadata = await fetch(`${postern.issuer}/.well-known/oauth-authorization-server`)
  t.match(((await metadata.json()) as { grant_types_supported: string[] }).grant_types_supported.join(' '), kiosk)
  const client = await addClient(original, {
    redirectUris: [],
    grantTypes: [kiosk],
    tokenEndpointAuthMethod: 'client_secret_post',
  })
  const { client_id, client_secret } = client
  t.match(await post(postern, '/token', { grant_type: kiosk, client_id, client_secret }), {
    status: 200,
    body: { token_type: 'Bearer', expires_in: 60 },
  })
  t.match(await post(postern, '/token', { grant_type: kiosk, client_id, client_secret: 'wrong' }), { status: 401 })
})
