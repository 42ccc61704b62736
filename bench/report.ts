import { OPERATIONS, type OperationName } from './operations.ts'
import { LIMITS, PEERS, type ServerPlan } from './servers.ts'

/** One operation at one server in one round. CPU times are `undefined` where the system doesn't tell them. */
export interface Measurement {
  server: string
  /** in what circumstances the server ran: with how many rows, how far from Postgres; empty where a run has one */
  variant: string
  operation: OperationName
  count: number
  /** operations per second */
  rate: number
  p50Milliseconds: number
  p99Milliseconds: number
  /** in all, not for each */
  serverMicroseconds: number | undefined
  databaseMicroseconds: number | undefined
}

/** What is known of a process after the last round. */
export interface ProcessFacts {
  server: string
  variant: string
  startMilliseconds: number
  memoryMebibytes: number | undefined
}

/** Where and how it was measured. */
export interface Circumstances {
  machine: string
  versions: string
  settings: string
}

/**
 * Tables in Markdown: one for each operation, one for the processes, and what was left out.
 *
 * @param processes in the order of the tables; others are compared with the variant of the first
 */
export function describe(
  measurements: Measurement[],
  processes: ProcessFacts[],
  plans: ServerPlan[],
  { machine, versions, settings }: Circumstances,
): string {
  const operations = (Object.keys(OPERATIONS) as OperationName[]).filter((name) =>
    measurements.some(({ operation }) => operation === name),
  )
  const variants = [...new Set(processes.map(({ variant }) => variant))]
  return [
    `- Machine: ${machine}`,
    `- Versions: ${versions}`,
    `- Settings: ${settings}`,
    '',
    ...operations.flatMap((name) => [
      `## ${capitalised(OPERATIONS[name])}`,
      '',
      ...operationTable(name, measurements, plans, variants),
      '',
    ]),
    '## Processes',
    '',
    ...table(
      ['server', 'start, ms', 'memory after load, MiB', 'what it is'],
      processes.map(({ server, variant, startMilliseconds, memoryMebibytes }) => [
        nameOf(server, variant),
        whole(startMilliseconds),
        whole(memoryMebibytes),
        plans.find(({ name }) => name === server)?.meaning ?? '',
      ]),
    ),
    ...plans.flatMap(({ name, omitted }) =>
      Object.entries(omitted)
        .filter(([operation]) => operations.includes(operation as OperationName))
        .map(([operation, reason]) => `\nLeft out: ${OPERATIONS[operation as OperationName]} at ${name}: ${reason}.`),
    ),
    '',
  ].join('\n')
}

/** The name of a server in tables and in progress, with its variant. */
export function nameOf(server: string, variant: string): string {
  return variant === '' ? server : `${server}, ${variant}`
}

/** Medians with their spread, how each server compares to limits and peers, and what a request costs. */
function operationTable(
  operation: OperationName,
  all: Measurement[],
  plans: ServerPlan[],
  variants: string[],
): string[] {
  const measured = all.filter((one) => one.operation === operation)
  const servers = plans.map(({ name }) => name).filter((name) => measured.some(({ server }) => server === name))
  const [first = ''] = variants
  const roundsOf = (server: string, variant: string) =>
    measured.filter((one) => one.server === server && one.variant === variant)
  const rateOf = (server: string, variant: string) => median(roundsOf(server, variant).map(({ rate }) => rate))
  const compared = [...LIMITS, ...PEERS].filter((name) => servers.includes(name))
  const rowOf = (server: string, variant: string) => {
    const rounds = roundsOf(server, variant)
    const rates = rounds.map(({ rate }) => rate)
    const own = median(rates)
    return [
      nameOf(server, variant),
      whole(own),
      `${whole(Math.min(...rates))} to ${whole(Math.max(...rates))}`,
      ...(variants.length === 1 ? [] : [variant === first ? '' : ratio(own / rateOf(server, first))]),
      ...compared.map((other) => (other === server ? '' : ratio(own / rateOf(other, variant)))),
      median(rounds.map(({ p50Milliseconds }) => p50Milliseconds)).toFixed(2),
      median(rounds.map(({ p99Milliseconds }) => p99Milliseconds)).toFixed(2),
      whole(perOperation(rounds, 'serverMicroseconds')),
      whole(perOperation(rounds, 'databaseMicroseconds')),
    ]
  }
  const rows = servers.flatMap((server) => variants.map((variant) => rowOf(server, variant)))
  const titles = [
    ...(variants.length === 1 ? [] : [`of its own${first && `, ${first}`}`]),
    ...compared.map((name) => `of ${name}`),
  ]
  const cost = ['p50, ms', 'p99, ms', 'CPU of server, µs', 'CPU of Postgres, µs']
  return table(['server', 'per second', 'spread', ...titles, ...cost], rows)
}

/** Over all rounds: the clock of the system is coarse. */
function perOperation(rounds: Measurement[], key: 'serverMicroseconds' | 'databaseMicroseconds'): number | undefined {
  let microseconds = 0
  let count = 0
  for (const round of rounds) {
    const value = round[key]
    if (value === undefined) return undefined
    microseconds += value
    count += round.count
  }
  return microseconds / count
}

/** The value in the middle, or between the two there. */
export function median(values: number[]): number {
  const sorted = [...values].sort((one, other) => one - other)
  const middle = sorted.length / 2
  return ((sorted[Math.ceil(middle) - 1] ?? 0) + (sorted[Math.floor(middle)] ?? 0)) / 2
}

function table(head: string[], rows: string[][]): string[] {
  const line = (cells: string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map((_, column) => (column === 0 ? '---' : '---:'))), ...rows.map(line)]
}

function whole(value: number | undefined): string {
  return value === undefined ? '–' : Math.round(value).toLocaleString('en')
}

function ratio(value: number): string {
  return value >= 10 ? value.toFixed(1) : value.toFixed(2)
}

function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
