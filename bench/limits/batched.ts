/**
 * A bare limit: Fastify, and the statements of one turn of the event loop in one. One of a kind is under way at a time,
 * and at most a hundred entries share it, as in Postern where the database is near. Where it is far, this is no limit.
 */
import type pg from 'pg'
import { type Row, serveLimit } from './serve.ts'
import type { Statement } from './statements.ts'

const MOST_ENTRIES = 100

interface Waiting {
  values: unknown[]
  resolve: (row: Row | undefined) => void
  reject: (reason: unknown) => void
}

await serveLimit((pool) => {
  const queues = new Map<Statement, (values: unknown[]) => Promise<Row | undefined>>()
  return (statement, values) => {
    const add = queues.get(statement) ?? queueFor(pool, statement)
    queues.set(statement, add)
    return add(values)
  }
})

function queueFor(pool: pg.Pool, statement: Statement): (values: unknown[]) => Promise<Row | undefined> {
  const names = Object.keys(statement.columns)
  const keyIndex = names.indexOf(statement.key ?? '')
  const text = statement.text(relationOf(statement))
  let waiting: Waiting[] = []
  let isUnderWay = false
  let isScheduled = false

  const schedule = () => {
    if (isScheduled || waiting.length === 0 || isUnderWay) return
    isScheduled = true
    setImmediate(() => {
      isScheduled = false
      isUnderWay = true
      send(take()).finally(() => {
        isUnderWay = false
        schedule()
      })
    })
  }

  const take = () => {
    if (keyIndex < 0) return waiting.splice(0, MOST_ENTRIES)
    const keys = new Set<string>()
    const taken: Waiting[] = []
    waiting = waiting.filter((one) => {
      const key = (one.values[keyIndex] as Buffer).toString('latin1')
      const stays = taken.length >= MOST_ENTRIES || keys.has(key)
      if (!stays) taken.push(one)
      keys.add(key)
      return stays
    })
    return taken
  }

  const send = async (batch: Waiting[]) => {
    try {
      const values = names.map((_, index) => batch.map((one) => one.values[index]))
      const { rows } = await pool.query({ name: statement.name, text, values })
      const found = new Map<unknown, Row>(rows.map((row) => [row.entry, row]))
      for (const [index, { resolve }] of batch.entries()) resolve(found.get(index))
    } catch (error) {
      for (const { reject } of batch) reject(error)
    }
  }

  return (values) =>
    new Promise((resolve, reject) => {
      waiting.push({ values, resolve, reject })
      schedule()
    })
}

function relationOf({ columns }: Statement): string {
  const arrays = Object.values(columns).map((type, index) => `$${index + 1}::${type}[]`)
  const names = Object.keys(columns).join(', ')
  return `(
    select ${names}, entry::integer - 1 as entry
    from unnest(${arrays.join(', ')}) with ordinality as e (${names}, entry)
  ) as p`
}
