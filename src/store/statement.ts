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

/**
 * Rows of a statement for several entries, in the order of the entries; `undefined` where one has none.
 *
 * Such statements are given each column as an array. What is a list itself goes as text, separated by spaces, since
 * arrays of arrays can't be taken apart row by row, and neither scopes nor URIs nor identifiers hold a space.
 *
 * @param rows with the number of their entry, from 0
 */
export function inOrder<Row>(entries: unknown[], rows: (Row & { entry: number })[]): (Row | undefined)[] {
  const found = new Array<Row | undefined>(entries.length)
  for (const row of rows) found[row.entry] = row
  return found
}
