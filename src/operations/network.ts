import ipaddr from 'ipaddr.js'

/**
 * The network that an address stands for when requests are counted: an IPv4 address itself, and the /64 of an
 * IPv6 address, since one household or server has all of it.
 */
export function networkOf(address: string): string {
  if (!ipaddr.isValid(address)) return 'unknown'
  const parsed = ipaddr.process(address) // IPv4 in IPv6 becomes IPv4
  if (parsed.kind() === 'ipv4') return parsed.toString()
  const [network] = ipaddr.IPv6.networkAddressFromCIDR(`${parsed.toString().replace(/%.*/, '')}/64`)
    .toString()
    .split('%')
  return `${network}/64`
}
