import ipaddr from 'ipaddr.js'

/**
 * Parts of IPv6 that hold an IPv4 address: what counts is that one. NAT64 is how hosts with IPv6 alone reach the
 * whole of IPv4 (RFC 6052 §2.1).
 */
const HOLDS_IPV4: { range: [ipaddr.IPv6, number]; at: number }[] = [
  { range: ipaddr.IPv6.parseCIDR('::ffff:0:0/96'), at: 12 },
  { range: ipaddr.IPv6.parseCIDR('64:ff9b::/96'), at: 12 },
  { range: ipaddr.IPv6.parseCIDR('2002::/16'), at: 2 },
]

/** All that has been given out for use on the internet (IANA IPv6 address space registry). */
const GLOBAL_UNICAST = ipaddr.IPv6.parseCIDR('2000::/3')

/** Special, though the registries don't say so: a cloud's own services answer here. */
const CLOUD_SERVICES = ['168.63.129.16'] // Azure

/** Whether an address is this machine itself. */
export function isLoopbackAddress(text: string): boolean {
  return ipaddr.isValid(text) && unwrap(ipaddr.parse(text)).range() === 'loopback'
}

/**
 * Whether an address belongs to a host on the internet, and to no special use: private networks, loopback, link
 * and metadata services, documentation, multicast and all else in the IANA special-purpose registries (RFC 6890).
 */
export function isPublicAddress(text: string): boolean {
  if (!ipaddr.isValid(text) || text.includes('%')) return false
  const address = unwrap(ipaddr.parse(text))
  if (address.range() !== 'unicast') return false
  if (address instanceof ipaddr.IPv6) return address.match(GLOBAL_UNICAST)
  return !CLOUD_SERVICES.includes(address.toString())
}

function unwrap(address: ipaddr.IPv4 | ipaddr.IPv6): ipaddr.IPv4 | ipaddr.IPv6 {
  if (address instanceof ipaddr.IPv4) return address
  const holder = HOLDS_IPV4.find(({ range }) => address.match(range))
  return holder === undefined ? address : new ipaddr.IPv4(address.toByteArray().slice(holder.at, holder.at + 4))
}
