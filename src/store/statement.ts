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
    const parameters = made.order.map((one) => encode(values[one]))
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
 * A column of hashes goes in Postgres' own form, which is read without a look at each character: the driver sends a
 * `Buffer` as it is, so the placeholder is cast to `bytea[]`. Anything else stays as it was.
 */
function encode(value: unknown): unknown {
  if (!Array.isArray(value)) return value
  const first = value.find((one) => one !== null)
  return Buffer.isBuffer(first) ? byteaArray(value) : value
}

const BYTEA = 17 // its object identifier in the catalog

/** The binary form of `bytea[]`: dimensions, whether there are nulls, type, length, first index; then each with its size. */
function byteaArray(values: (Buffer | null)[]): Buffer {
  const bytes = Buffer.allocUnsafe(values.reduce((size, one) => size + 4 + (one?.length ?? 0), 20))
  let end = 0
  for (const head of [1, values.includes(null) ? 1 : 0, BYTEA, values.length, 1]) end = bytes.writeInt32BE(head, end)
  for (const one of values) {
    end = bytes.writeInt32BE(one?.length ?? -1, end)
    if (one !== null) end += one.copy(bytes, end)
  }
  return bytes
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
