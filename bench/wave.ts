import { PERSON } from './accounts.ts'
import type { Cluster } from './cluster.ts'
import { type Amount, type Driver, measure } from './measure.ts'
import { authorizationPath } from './operations.ts'
import { median } from './report.ts'
import { WAVE } from './seed.ts'
import type { Running } from './servers.ts'
import { signIn } from './sign-in.ts'

/**
 * A wave of people who sign in at once while resource servers introspect: what is left of the rate that introspection
 * has by itself, for as long as the wave lasts, round by round.
 */
export async function measureWave(
  driver: Driver,
  cluster: Cluster,
  server: Running,
  rounds: number,
  amount: Amount,
  say: (line: string) => void,
): Promise<string> {
  const introspect = (seconds: number) =>
    measure(driver, cluster, server, 'introspect-user', { ...amount, seconds, requests: Number.MAX_SAFE_INTEGER })
  await introspect(amount.seconds) // warms up
  const shares: number[] = []
  for (let round = 1; round <= rounds; round += 1) {
    const { rate: own } = await introspect(amount.seconds)
    const underLoad = introspect(3600)
    const startedAt = performance.now()
    try {
      await Promise.all(Array.from({ length: WAVE }, (_, number) => signInAs(server, number + 1)))
    } finally {
      driver.stopJob()
    }
    const seconds = (performance.now() - startedAt) / 1000
    const { rate, p99Milliseconds } = await underLoad
    shares.push(rate / own)
    say(
      `round ${round}: alone ${Math.round(own)} per second; while ${WAVE} people signed in, which took ` +
        `${seconds.toFixed(2)} s, ${Math.round(rate)} (${percent(rate / own)}), p99 ${p99Milliseconds.toFixed(1)} ms`,
    )
  }
  return `${percent(median(shares))} of its own rate (${percent(Math.min(...shares))} to ${percent(Math.max(...shares))})`
}

async function signInAs({ target, plan }: Running, number: number): Promise<void> {
  const address = authorizationPath(plan.paths.authorize, target.application)
  const person = { ...PERSON, username: `person${number}` }
  await signIn(`http://localhost:${target.ports[0]}${address}`, person)
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`
}
