import { pino } from 'pino'
import type { TestPostern } from './postern.ts'

/** Keeps what is logged, from now on, at every level. */
export function watchLog({ context: { log } }: TestPostern) {
  const lines: string[] = []
  Object.assign(log, { [pino.symbols.streamSym]: { write: (line: string) => lines.push(line) } })
  log.level = 'trace'
  return {
    lines: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>),
    text: () => lines.join(''),
  }
}
