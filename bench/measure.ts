import type { ChildProcess } from 'node:child_process'
import { type Cluster, withClient } from './cluster.ts'
import type { Job, Order, Outcome, Report } from './driver.ts'
import type { OperationName } from './operations.ts'
import { cpuOfPostgres, end, startProgram } from './processes.ts'
import { type Measurement, nameOf } from './report.ts'
import type { Running } from './servers.ts'

/** How much one measurement is. */
export interface Amount {
  connections: number
  seconds: number
  requests: number
}

/** The process that sends the requests. */
export class Driver {
  readonly #child: ChildProcess

  constructor(core: number | undefined) {
    this.#child = startProgram(core, 'bench/driver.js', {})
    this.#child.stderr?.pipe(process.stderr)
  }

  /** Prepares a job. @returns runs it, to be called when the clocks have been read */
  async prepare(job: Job): Promise<() => Promise<Outcome>> {
    this.#say({ job })
    await this.#hear()
    return async () => {
      this.#say({ go: true })
      const report = await this.#hear()
      if (!('outcome' in report)) throw new Error('the driver has lost count')
      return report.outcome
    }
  }

  /** Ends what is running; its outcome counts. */
  stopJob(): void {
    this.#say({ stop: true })
  }

  close(): Promise<void> {
    return end(this.#child)
  }

  #say(order: Order): void {
    this.#child.send(order)
  }

  async #hear(): Promise<Report> {
    const report = await new Promise<Report>((resolve, reject) => {
      const onExit = () => reject(new Error('the driver ended'))
      this.#child.once('exit', onExit).once('message', (message) => {
        this.#child.off('exit', onExit)
        resolve(message as Report)
      })
    })
    if ('problem' in report) throw new Error(report.problem)
    return report
  }
}

/** Measures one operation at one server, with the CPU time that it costs there and in Postgres. */
export async function measure(
  driver: Driver,
  cluster: Cluster,
  server: Running,
  operation: OperationName,
  amount: Amount,
): Promise<Measurement> {
  const { plan, variant } = server
  const name = nameOf(plan.name, variant)
  try {
    const go = await driver.prepare({ server: name, target: server.target, operation, ...amount })
    // autovacuum would do it within a minute: until then, Postgres plans for the tables of before
    await withClient(cluster.urlOf(server.database), (client) => client.query('analyze'))
    const before = [server.cpuMicroseconds(), cpuOfPostgres(cluster.pid)] as const
    const outcome = await go()
    const after = [server.cpuMicroseconds(), cpuOfPostgres(cluster.pid)] as const
    return {
      server: plan.name,
      variant,
      operation,
      count: outcome.count,
      rate: outcome.count / outcome.seconds,
      p50Milliseconds: outcome.p50Milliseconds,
      p99Milliseconds: outcome.p99Milliseconds,
      serverMicroseconds: difference(before[0], after[0]),
      databaseMicroseconds: difference(before[1], after[1]),
    }
  } catch (error) {
    throw new Error(`${name}, ${operation}: ${(error as Error).message}`, { cause: error })
  }
}

function difference(before: number | undefined, after: number | undefined): number | undefined {
  return before === undefined || after === undefined ? undefined : after - before
}
