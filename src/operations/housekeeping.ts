import type { Context } from '../context.ts'
import { removeEndedRows } from '../store/ended-rows.ts'

const PAUSE_SECONDS = 30
const BATCH = 1000

/**
 * Removes what has ended, for as long as the process runs: a batch of each kind, a pause, and so on; without
 * the pause while there is more. On one replica at a time. Signing keys are made when they are due.
 *
 * @param sealAnew seals what another encryption key than the current one has sealed
 * @returns stops it; resolves when a running batch is done
 */
export function startHousekeeping(
  { config, db, keys, log }: Pick<Context, 'config' | 'db' | 'keys' | 'log'>,
  sealAnew: () => Promise<void>,
): () => Promise<void> {
  let stopped = false
  let wake = () => {}
  const work = (async () => {
    while (!stopped) {
      await attempt('signing_keys_failed', 'signing keys were not looked after', () => keys.tend())
      await attempt('sealing_failed', 'what an older key has sealed was not sealed anew', sealAnew)
      const more = await cleanUp()
      if (more || stopped) continue
      await new Promise<void>((resolve) => {
        wake = resolve
        setTimeout(resolve, PAUSE_SECONDS * 1000).unref()
      })
    }
  })()

  async function attempt(event: string, failure: string, chore: () => Promise<void>): Promise<void> {
    try {
      await chore()
    } catch (error) {
      if (!stopped) log.error({ event, err: error }, failure)
    }
  }

  async function cleanUp(): Promise<boolean> {
    try {
      const result = await removeEndedRows(db, config, BATCH)
      if (result === undefined) return false
      if (Object.keys(result.removed).length > 0)
        log.debug({ event: 'housekeeping', removed: result.removed }, 'housekeeping')
      return result.more
    } catch (error) {
      if (!stopped) log.warn({ event: 'housekeeping_failed', err: error }, 'housekeeping failed, and is tried again')
      return false
    }
  }

  return async () => {
    stopped = true
    wake()
    await work
  }
}
