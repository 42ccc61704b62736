/**
 * Lets all who ask for the same thing at the same time wait for one piece of work, in this process.
 *
 * @returns runs `work`, unless it is under way for this owner and key. Whoever would start it is admitted first: a
 *   refusal is the asker's own, and never what others get to see
 */
export function createCoalescer<T>(): (
  owner: object,
  key: string,
  work: () => Promise<T>,
  admit?: () => Promise<void>,
) => Promise<T> {
  const owners = new WeakMap<object, Map<string, Promise<T>>>()
  return async (owner, key, work, admit) => {
    const underWay = owners.get(owner) ?? new Map<string, Promise<T>>()
    owners.set(owner, underWay)
    if (!underWay.has(key)) await admit?.()
    const running = underWay.get(key) // maybe somebody else's, who was admitted meanwhile
    if (running !== undefined) return running
    const started = work().finally(() => underWay.delete(key))
    underWay.set(key, started)
    return started
  }
}
