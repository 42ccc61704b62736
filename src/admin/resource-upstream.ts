import type { Context } from '../context.ts'
import { allowResourceUpstream, disallowResourceUpstream } from '../store/resource-upstream.ts'
import { AdminError } from './output.ts'
import { demandProvider } from './provider.ts'

/** Options of `postern resource set` about what a resource server may do upstream. */
export interface UpstreamOptions {
  allowUpstream?: string[]
  disallowUpstream?: string[]
}

/** What becomes of one provider. */
interface UpstreamChange {
  providerId: string
  allowed: 'no' | 'yes' | 'offline'
}

/** Reads the changes. @throws {AdminError} */
export function readUpstreams({ allowUpstream = [], disallowUpstream = [] }: UpstreamOptions): UpstreamChange[] {
  const changes: UpstreamChange[] = [
    ...allowUpstream.map((typed): UpstreamChange => {
      const [providerId = '', ...words] = typed.split(':')
      if (words.length > 1 || (words.length === 1 && words[0] !== 'offline')) {
        throw new AdminError(`--allow-upstream takes PROVIDER or PROVIDER:offline, and not ${typed}.`)
      }
      return { providerId, allowed: words.length === 0 ? 'yes' : 'offline' }
    }),
    ...disallowUpstream.map((providerId): UpstreamChange => ({ providerId, allowed: 'no' })),
  ]
  for (const [index, { providerId }] of changes.entries()) {
    if (changes.findIndex((other) => other.providerId === providerId) !== index) {
      throw new AdminError(`The identity provider ${providerId} is there twice.`)
    }
  }
  return changes
}

/** Looks at all of the changes before it makes the first. @throws {AdminError} */
export async function changeUpstreams(db: Context['db'], resourceId: string, changes: UpstreamChange[]): Promise<void> {
  for (const { providerId, allowed } of changes) {
    const provider = await demandProvider(db, providerId)
    if (allowed !== 'no' && !provider.keeps_tokens) {
      throw new AdminError(
        `The tokens of ${providerId} are not kept, so nobody can act there: postern provider set ${providerId} --keep-tokens changes that.`,
      )
    }
  }
  for (const { providerId, allowed } of changes) {
    const key = { resourceId, providerId }
    if (allowed === 'no') await disallowResourceUpstream(db, key)
    else await allowResourceUpstream(db, key, allowed === 'offline')
  }
}
