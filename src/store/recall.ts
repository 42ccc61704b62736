import type { Kysely } from 'kysely'
import type { Database } from './database.ts'

/** Rows of a kind that are kept at most: those that were read last. */
const MOST_ROWS = 1000

/** A row that is longer as JSON isn't kept: a registration may have 64 KB, and any person can bring many. */
const MOST_CHARACTERS = 4096

/**
 * Rows that earlier requests have read, so that a request can be judged without reading them again.
 *
 * It is no cache: a recalled row may be outdated, so nothing may follow from it but a statement which takes effect only
 * where the row still has that version. Whatever else it would lead to, a refusal above all, takes a fresh look.
 */
export class Recall<Row> {
  readonly #rows = new WeakMap<Kysely<Database>, Map<string, Row>>()

  /** @param db the pool that the row was read with: databases have nothing in common */
  keep(db: Kysely<Database>, key: string, row: Row): void {
    const rows = this.#rows.get(db) ?? new Map<string, Row>()
    this.#rows.set(db, rows)
    rows.delete(key)
    if (JSON.stringify(row).length > MOST_CHARACTERS) return
    rows.set(key, row)
    const [oldest] = rows.keys()
    if (rows.size > MOST_ROWS && oldest !== undefined) rows.delete(oldest)
  }

  get(db: Kysely<Database>, key: string): Row | undefined {
    return this.#rows.get(db)?.get(key)
  }
}
