import { isIPv4 } from 'node:net'
import ipaddr from 'ipaddr.js'

/**
 * The network that an address stands for when requests are counted: an IPv4 address itself, and the /64 of an
 * IPv6 address, since one household or server has all of it.
 *
 * @param address as a proxy wrote it, maybe with a port behind an IPv4 address
 * @param ipv6Bits length of the IPv6 prefix: 48 is what a hoster gives to one customer at the most
 */
export function networkOf(address: string, ipv6Bits: 48 | 64 = 64): string {
  const bare = address.replace(/^(\d+(?:\.\d+){3}):\d+$/, '$1')
  if (isIPv4(bare)) return bare
  if (!ipaddr.isValid(bare)) return 'unknown'
  const parsed = ipaddr.process(bare) // IPv4 in IPv6 becomes IPv4
  if (parsed.kind() === 'ipv4') return parsed.toString()
  const [network] = ipaddr.IPv6.networkAddressFromCIDR(`${parsed.toString().replace(/%.*/, '')}/${ipv6Bits}`)
    .toString()
    .split('%')
  return `${network}/${ipv6Bits}`
}
