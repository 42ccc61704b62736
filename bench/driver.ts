/**
 * The driver: a process of its own that sends requests, told by messages what to measure. It prepares, says that it is
 * ready, and runs when it is told to, so that others can read their clocks at both ends.
 */
import { Connection } from './http-client.ts'
import { type OperationName, Operations, type Target } from './operations.ts'

/** What to measure. */
export interface Job {
  server: string
  target: Target
  operation: OperationName
  connections: number
  /** ends after this many seconds, … */
  seconds: number
  /** … or this many operations, … */
  requests: number
}

export type Order = { job: Job } | { go: true } | { stop: true } // … or when it is told to stop

export interface Outcome {
  /** operations that were carried out */
  count: number
  seconds: number
  p50Milliseconds: number
  p99Milliseconds: number
}

export type Report = { ready: true } | { outcome: Outcome } | { problem: string }

const remembered = new Map<string, Operations>()
let stopped = false
let go = () => {}

process.on('message', (order: Order) => {
  if ('go' in order) go()
  else if ('stop' in order) stopped = true
  else
    carryOut(order.job).then(
      (outcome) => say({ outcome }),
      (error: Error) => say({ problem: error.message }),
    )
})
process.on('disconnect', () => process.exit())

async function carryOut(job: Job): Promise<Outcome> {
  const { target, operation } = job
  const operations = remembered.get(job.server) ?? new Operations(target)
  remembered.set(job.server, operations)
  const opened = Array.from({ length: job.connections }, (_, n) =>
    Connection.open(target.ports[n % target.ports.length] as number),
  )
  const connections = await Promise.all(opened)
  try {
    await operations.prepare(operation, connections, job.requests)
    stopped = false
    const told = new Promise<void>((resolve) => {
      go = resolve
    })
    say({ ready: true })
    await told
    return await measure(job, (connection, worker) => operations.run(operation, connection, worker), connections)
  } finally {
    for (const connection of connections) connection.close()
  }
}

/** Each connection sends one after the other. */
async function measure(
  { seconds, requests }: Job,
  run: (connection: Connection, worker: number) => Promise<unknown>,
  connections: Connection[],
): Promise<Outcome> {
  const latencies: number[] = []
  let begun = 0
  const startedAt = performance.now()
  const endsAt = startedAt + seconds * 1000
  const work = async (connection: Connection, worker: number) => {
    for (let from = performance.now(); from < endsAt && begun < requests && !stopped; ) {
      begun += 1
      await run(connection, worker)
      const to = performance.now()
      latencies.push(to - from)
      from = to
    }
  }
  await Promise.all(connections.map(work))
  const elapsed = (performance.now() - startedAt) / 1000
  const sorted = Float64Array.from(latencies).sort()
  const percentile = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
  return {
    count: sorted.length,
    seconds: elapsed,
    p50Milliseconds: percentile(0.5),
    p99Milliseconds: percentile(0.99),
  }
}

function say(report: Report): void {
  process.send?.(report)
}
