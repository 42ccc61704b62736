import { type RawBuilder, sql } from 'kysely'
import type { Lifetimes } from './database.ts'

/** Seconds, as a client `c` has them, or else a resource `r`, or else as they are configured. */
export function secondsOf(lifetime: keyof Lifetimes, configured: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`coalesce(c.${sql.ref(lifetime)}, r.${sql.ref(lifetime)}, ${configured})`
}

/** When such a lifetime ends, if it begins now. */
export function endOf(lifetime: keyof Lifetimes, configured: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`now() + make_interval(secs => ${secondsOf(lifetime, configured)})`
}
