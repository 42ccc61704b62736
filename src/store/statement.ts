import { CompiledQuery, type Kysely, type RawBuilder, sql } from 'kysely'
import type { Database } from './database.ts'

/**
 * Makes a statement whose text is always the same: it is put together once, and only the values differ from call to
 * call. For statements that are sent for every request.
 *
 * @param build the statement, with a placeholder for each value; one may stand in several places
 */
export function statement<Row, Name extends string>(
  build: (placeholders: Record<Name, RawBuilder<unknown>>) => RawBuilder<unknown>,
): (db: Kysely<Database>, values: Record<Name, unknown>) => Promise<Row[]> {
  let made: { text: string; order: Name[] } | undefined
  return async (db, values) => {
    made ??= make(db, build)
    const parameters = made.order.map((one) => values[one])
    return (await db.executeQuery<Row>(CompiledQuery.raw(made.text, parameters))).rows
  }
}

function make<Name extends string>(
  db: Kysely<Database>,
  build: (placeholders: Record<Name, RawBuilder<unknown>>) => RawBuilder<unknown>,
): { text: string; order: Name[] } {
  const placeholders = new Proxy({}, { get: (_, key) => sql.val(key) }) as Record<Name, RawBuilder<unknown>>
  const { sql: text, parameters } = build(placeholders).compile(db)
  return { text, order: parameters as Name[] }
}
