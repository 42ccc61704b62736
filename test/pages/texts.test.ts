import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Eta } from 'eta'
import t from 'tap'
import ts from 'typescript'

const ROOT = join(import.meta.dirname, '..', '..', '..')

t.test('every text of the pages is in the catalogue', async (t) => {
  for (const name of readdirSync(join(ROOT, 'views')).filter((name) => name.endsWith('.eta'))) {
    t.same(ownTexts(readFileSync(join(ROOT, 'views', name), 'utf8')), [], `views/${name}`)
  }
  for (const name of readdirSync(join(ROOT, 'src/pages')).filter((name) => name !== 'texts.ts')) {
    t.same(sentencesIn(readFileSync(join(ROOT, 'src/pages', name), 'utf8')), [], `src/pages/${name}`)
  }
})

t.test('a text beside the catalogue is found', async (t) => {
  for (const template of [
    '<p>Hello</p>',
    '<p><% if (it.a) { %>hello<% } %></p>',
    '<button aria-label="Send <%= it.name %>"></button>',
    '<img alt="A logo">',
    `<p><%= it.a ? ', also here' : '' %></p>`,
    `<% layout('./layout', { title: 'Hello' }) %>`,
  ]) {
    t.equal(ownTexts(template).length, 1, template)
  }
  t.same(
    sentencesIn(`const problem = 'Try again.'; const other = \`Hello \${name}\`; const code = 'not_found'`).length,
    2,
  )
})

t.test('names in sentences are escaped, set apart, and stand where the language has them', async (t) => {
  const eta = new Eta({ views: join(ROOT, 'views') })
  const values = { b: '<b>&', a: '{b}' }
  const render = (more: object) => eta.render('./sentence', { text: '{b} & {a}.', values, ...more })
  t.equal(render({}), '<bdi>&lt;b&gt;&amp;</bdi> &amp; <bdi>{b}</bdi>.')
  t.equal(
    render({ tag: 'strong', class: 'name' }),
    '<strong class="name"><bdi>&lt;b&gt;&amp;</bdi></strong> &amp; <strong class="name"><bdi>{b}</bdi></strong>.',
  )
  t.equal(render({ tag: 'code' }), '<code>&lt;b&gt;&amp;</code> &amp; <code>{b}</code>.')
})

/** Words that a template shows and that don't come from the program. */
function ownTexts(template: string): string[] {
  const code = [...template.matchAll(/<%[=~]?([\s\S]*?)%>/g)].map(([, text = '']) =>
    text.replace(/\/\*[\s\S]*?\*\//g, ''),
  )
  const inCode = code.flatMap((text) =>
    [...text.matchAll(/'([^']*)'|"([^"]*)"|`([^`]*)`/g)].map(([, ...found]) => found.join('')),
  )
  const markup = template.replace(/<%[\s\S]*?%>/g, '')
  const attributes = [...markup.matchAll(/ (?:aria-label|alt|title|placeholder)="([^"]*)"/g)].map(
    ([, text = '']) => text,
  )
  const between = markup.replace(/<!doctype html>/, '').split(/<[^>]*>/)
  return [...inCode.filter((text) => /[A-Z ]/.test(text)), ...attributes, ...between].filter((text) =>
    /\p{L}/u.test(text),
  )
}

/** String literals that look like the beginning of a sentence. Messages for logs and clients begin in lower case. */
function sentencesIn(source: string): string[] {
  const found: string[] = []
  const visit = (node: ts.Node): void => {
    if ((ts.isStringLiteralLike(node) || ts.isTemplateHead(node)) && /^[A-Z][a-z]+ /.test(node.text))
      found.push(node.text)
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile('x.ts', source, ts.ScriptTarget.Latest, true))
  return found
}
