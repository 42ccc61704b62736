import { CompiledQuery, type Kysely } from 'kysely'
import { type Database, DatabaseBusy, isRolledBack } from './database.ts'

/** Entries of one statement at most: beyond that, larger ones gain little, and hold rows for longer. */
const MOST_ENTRIES = 100

/**
 * Entries wait for a statement of their kind that is under way, to share the next: measured, two at a time cost a fifth of
 * the throughput. One that is slow, or stuck behind a lock, holds nobody up for longer than from five milliseconds to ten:
 * two ticks of a clock that runs while statements do, since a timer for each would cost more than it saves.
 */
const TICK_MILLISECONDS = 5
const PATIENCE_TICKS = 2

/**
 * From here on a database is far: most of a statement's time is spent on the way, and waiting for one would leave the
 * server idle. Nearby, a round trip takes 0.1 to 0.4 ms.
 */
const FAR_MILLISECONDS = 0.7

/** How often a round trip is measured while statements are under way, and how many in a row must take long. */
const MEASURING_MILLISECONDS = 100
const LONG_ROUND_TRIPS = 16

/** Statements of one kind that are under way at a time: of the ten connections, two stay for others. */
const MOST_UNDER_WAY = 8

/** An entry that could not be sent for this long is refused, as one is that waits for a connection. */
const LONGEST_WAIT_MILLISECONDS = 5000

/** After a batch that failed, its entries go one by one, so many at a time. */
const SINGLES_AT_ONCE = 4

/** One statement for any number of entries; its results are in their order. */
type Statement<Entry, Result> = (db: Kysely<Database>, entries: Entry[]) => Promise<Result[]>

interface Waiting<Entry, Result> {
  entry: Entry
  /** of `performance.now()` */
  since: number
  resolve: (result: Result) => void
  reject: (reason: unknown) => void
}

/**
 * Lets entries that come in the same turn of the event loop share one statement.
 *
 * It is a batch and no cache: each entry has a result of its own, as fresh as that of a statement of its own, since
 * the statement begins after the entry came. What came in a turn goes at its end, and a single entry goes alone. While a
 * statement is under way, entries wait until it ends, or has taken for ten milliseconds; but not where the database is
 * far away, and never behind fewer than eight that hang.
 *
 * - **Order**: entries begin in the order in which they came, but for those that must not share a statement.
 * - **Failures**: where a statement fails in a way which proves that nothing was done, each of its entries gets a
 *   statement of its own, so that one doesn't spoil the others; a row that is held for long by somebody else is such a
 *   failure. After any other, such as a lost connection, all fail: nobody knows what was done.
 * - **Size**: at most a hundred entries share a statement.
 * - **Cancellation**: there is none. An entry whose sender has gone is carried out, as it would be by itself. One that
 *   could not be sent within five seconds is refused (`DatabaseBusy`), and nothing of it is done.
 * - **Transactions**: inside one, an entry is a statement of its own, at once; others have no business there.
 *
 * @param keyOf what two entries of one statement must not have in common, such as the row that they change
 */
export function batched<Entry, Result>(
  statement: Statement<Entry, Result>,
  keyOf?: (entry: Entry) => string,
): (db: Kysely<Database>, entry: Entry) => Promise<Result> {
  const queues = new WeakMap<Kysely<Database>, Queue<Entry, Result>>()
  return async (db, entry) => {
    if (db.isTransaction) return alone(statement, db, entry)
    const queue = queues.get(db) ?? new Queue(db, statement, keyOf, distanceOf(db))
    queues.set(db, queue)
    return queue.add(entry)
  }
}

/**
 * Whether a database is far away: so is one if every round trip of late took long. Statements of batches don't tell,
 * since they take longer the more entries they have. Several in a row, since one may have waited for a connection, or for
 * this process: with hundreds of connections most do, and then it makes no difference what it is taken for.
 */
class Distance {
  readonly #db: Kysely<Database>
  /** milliseconds, the newest first */
  #took: number[] = []
  #nextAt = 0

  constructor(db: Kysely<Database>) {
    this.#db = db
  }

  /** Measures, if it is time: beside a statement that begins now, so that this process may have little else to do. */
  measure(): void {
    const startedAt = performance.now()
    if (startedAt < this.#nextAt) return
    this.#nextAt = startedAt + MEASURING_MILLISECONDS
    const note = () => {
      this.#took = [performance.now() - startedAt, ...this.#took].slice(0, LONG_ROUND_TRIPS)
    }
    this.#db.executeQuery(CompiledQuery.raw('select')).then(note, () => {}) // statements tell of what has broken
  }

  get isFar(): boolean {
    return this.#took.length === LONG_ROUND_TRIPS && this.#took.every((took) => took >= FAR_MILLISECONDS)
  }
}

const distances = new WeakMap<Kysely<Database>, Distance>()

function distanceOf(db: Kysely<Database>): Distance {
  const distance = distances.get(db) ?? new Distance(db)
  distances.set(db, distance)
  return distance
}

/** What waits for its turn on one pool of connections. */
class Queue<Entry, Result> {
  #waiting: Waiting<Entry, Result>[] = []
  #underWay = 0
  #isScheduled = false
  #isWatching = false
  #clock: NodeJS.Timeout | undefined
  /** since the last statement began */
  #ticks = 0
  readonly #db: Kysely<Database>
  readonly #statement: Statement<Entry, Result>
  readonly #keyOf: ((entry: Entry) => string) | undefined
  readonly #distance: Distance

  constructor(
    db: Kysely<Database>,
    statement: Statement<Entry, Result>,
    keyOf: ((entry: Entry) => string) | undefined,
    distance: Distance,
  ) {
    this.#db = db
    this.#statement = statement
    this.#keyOf = keyOf
    this.#distance = distance
  }

  add(entry: Entry): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ entry, since: performance.now(), resolve, reject })
      this.#watchWait()
      this.#schedule()
    })
  }

  /** Refuses what has waited for too long, when that is so of the first. */
  #watchWait(): void {
    const first = this.#waiting[0]
    if (this.#isWatching || first === undefined) return
    this.#isWatching = true
    const watch = () => {
      this.#isWatching = false
      const tooLong = performance.now() - LONGEST_WAIT_MILLISECONDS
      const late = this.#waiting.filter(({ since }) => since <= tooLong)
      this.#waiting = this.#waiting.filter(({ since }) => since > tooLong)
      for (const { reject } of late) reject(new DatabaseBusy('statements before this one have not ended in time'))
      this.#watchWait()
    }
    setTimeout(watch, Math.max(1, first.since + LONGEST_WAIT_MILLISECONDS - performance.now()) + 1).unref()
  }

  /** Sends what waits at the end of this turn, when every socket that had something has been read. */
  #schedule(): void {
    if (this.#isScheduled || !this.#maySend()) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      if (this.#maySend()) this.#begin()
      this.#schedule()
    })
  }

  #maySend(): boolean {
    if (this.#waiting.length === 0 || this.#underWay >= MOST_UNDER_WAY) return false
    return this.#underWay === 0 || this.#ticks >= PATIENCE_TICKS || this.#distance.isFar
  }

  #begin(): void {
    this.#underWay += 1
    this.#ticks = 0
    this.#clock ??= setInterval(() => this.#tick(), TICK_MILLISECONDS).unref()
    this.#distance.measure()
    this.#send(this.#take())
  }

  /** A statement has ended: what came meanwhile goes at once, so that Postgres works while this process answers. */
  #end(): void {
    this.#underWay -= 1
    if (this.#maySend()) this.#begin()
  }

  #tick(): void {
    if (this.#underWay === 0) {
      clearInterval(this.#clock)
      this.#clock = undefined
      return
    }
    this.#ticks += 1
    this.#schedule()
  }

  #take(): Waiting<Entry, Result>[] {
    const keyOf = this.#keyOf
    if (keyOf === undefined) return this.#waiting.splice(0, MOST_ENTRIES)
    const keys = new Set<string>()
    const taken: Waiting<Entry, Result>[] = []
    const left: Waiting<Entry, Result>[] = []
    for (const one of this.#waiting) {
      const key = keyOf(one.entry)
      if (taken.length >= MOST_ENTRIES || keys.has(key)) left.push(one)
      else taken.push(one)
      keys.add(key)
    }
    this.#waiting = left
    return taken
  }

  async #send(batch: Waiting<Entry, Result>[]): Promise<void> {
    let results: Result[]
    try {
      const entries = batch.map(({ entry }) => entry)
      results = await this.#statement(this.#db, entries)
    } catch (error) {
      await this.#fail(batch, error)
      this.#end() // only now: the single ones are this statement's, and count as one
      return
    }
    this.#end()
    for (const [index, { resolve }] of batch.entries()) resolve(results[index] as Result)
  }

  /** Each entry gets a statement of its own, if nothing was done; else all fail. */
  async #fail(batch: Waiting<Entry, Result>[], error: unknown): Promise<void> {
    if (batch.length === 1 || !isRolledBack(error)) {
      for (const { reject } of batch) reject(error)
      return
    }
    const left = batch.values()
    const sendSingles = async () => {
      for (const { entry, resolve, reject } of left) {
        await alone(this.#statement, this.#db, entry).then(resolve, reject)
      }
    }
    await Promise.all(Array.from({ length: SINGLES_AT_ONCE }, sendSingles))
  }
}

async function alone<Entry, Result>(
  statement: Statement<Entry, Result>,
  db: Kysely<Database>,
  entry: Entry,
): Promise<Result> {
  const [result] = await statement(db, [entry])
  return result as Result
}
