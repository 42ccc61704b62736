/** A bare limit: Fastify, and one named statement for each request. */
import { serveLimit } from './serve.ts'
import type { Statement } from './statements.ts'

const texts = new Map<Statement, string>()

await serveLimit((pool) => async (statement, values) => {
  const text = texts.get(statement) ?? textOf(statement)
  texts.set(statement, text)
  return (await pool.query({ name: statement.name, text, values })).rows[0]
})

function textOf(statement: Statement): string {
  const values = Object.entries(statement.columns).map(([name, type], index) => `$${index + 1}::${type} as ${name}`)
  return statement.text(`(select 0 as entry, ${values.join(', ')}) as p`)
}
