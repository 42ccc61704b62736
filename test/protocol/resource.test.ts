import t from 'tap'
import { canonicalResource, protectedResourceMetadataUrl, resourceCandidates } from '../../src/protocol/resource.ts'

t.test('letter case of scheme and host, default port and root slash don’t matter (RFC 8707 §2)', async (t) => {
  for (const [uri, canonical] of [
    ['https://mcp.example.com', 'https://mcp.example.com'],
    ['https://mcp.example.com/', 'https://mcp.example.com'],
    ['HTTPS://MCP.Example.COM/', 'https://mcp.example.com'],
    ['https://mcp.example.com:443', 'https://mcp.example.com'],
    ['https://mcp.example.com:443/mcp', 'https://mcp.example.com/mcp'],
    ['http://localhost:80/mcp', 'http://localhost/mcp'],
    ['https://mcp.example.com:8443/mcp', 'https://mcp.example.com:8443/mcp'],
    ['https://MCP.example.com/MCP', 'https://mcp.example.com/MCP'],
    ['https://mcp.example.com/mcp?tenant=A', 'https://mcp.example.com/mcp?tenant=A'],
    ['https://mcp.example.com/?tenant=A', 'https://mcp.example.com/?tenant=A'],
    ['https://mcp.example.com/mcp/', 'https://mcp.example.com/mcp/'],
    ['https://mcp.example.com/a%2Fb', 'https://mcp.example.com/a%2Fb'],
    ['https://bücher.example/mcp', 'https://xn--bcher-kva.example/mcp'],
    ['https://BÜCHER.example/mcp', 'https://xn--bcher-kva.example/mcp'],
    ['https://[2001:DB8:0:0::1]/mcp', 'https://[2001:db8::1]/mcp'],
  ] as const) {
    t.equal(canonicalResource(uri), canonical, uri)
  }
})

t.test('an encoded slash is not a slash, and letter case in a path differs', async (t) => {
  t.not(canonicalResource('https://mcp.example.com/a%2Fb'), canonicalResource('https://mcp.example.com/a/b'))
  t.not(canonicalResource('https://mcp.example.com/MCP'), canonicalResource('https://mcp.example.com/mcp'))
})

t.test('a resource is an absolute web URI without fragment (RFC 8707 §2) and without credentials', async (t) => {
  for (const uri of [
    '',
    'mcp.example.com',
    '/mcp',
    '//mcp.example.com/mcp',
    'https://',
    'https://mcp.example.com/mcp#tools',
    'https://mcp.example.com/mcp#',
    'https://user@mcp.example.com/mcp',
    'https://user:password@mcp.example.com/mcp',
    'https://mcp.example.com:65536/mcp',
    'https://mcp.example.com/a b',
    'https://mcp.example.com/mcp\n',
    ' https://mcp.example.com/mcp',
    'https://mcp example.com/',
    'urn:example:mcp',
    'ftp://mcp.example.com/',
    'javascript:alert(1)',
    'mcp://mcp.example.com/',
  ]) {
    t.equal(canonicalResource(uri), undefined, JSON.stringify(uri))
    t.same(resourceCandidates(uri), [], JSON.stringify(uri))
  }
})

t.test('a canonical form is its own canonical form', async (t) => {
  for (const uri of [
    'https://A.example:443/',
    'http://b.example/x/../y/',
    'https://c.example/?q',
    'https://ü.example/%c3%bc',
  ]) {
    const once = canonicalResource(uri) ?? ''
    t.equal(canonicalResource(once), once, uri)
  }
})

t.test('one trailing slash is ignored; the form as requested is the better one', async (t) => {
  t.same(resourceCandidates('https://mcp.example.com/mcp'), [
    'https://mcp.example.com/mcp',
    'https://mcp.example.com/mcp/',
  ])
  t.same(resourceCandidates('https://mcp.example.com/mcp/'), [
    'https://mcp.example.com/mcp/',
    'https://mcp.example.com/mcp',
  ])
  t.same(
    resourceCandidates('https://mcp.example.com/mcp//'),
    ['https://mcp.example.com/mcp//', 'https://mcp.example.com/mcp/'],
    'one, not all of them',
  )
})

t.test('the root has one form, and a query is compared exactly', async (t) => {
  t.same(resourceCandidates('https://mcp.example.com/'), ['https://mcp.example.com'])
  t.same(resourceCandidates('https://mcp.example.com'), ['https://mcp.example.com'])
  t.same(resourceCandidates('https://mcp.example.com/mcp?a=/'), ['https://mcp.example.com/mcp?a=/'])
})

t.test('the well-known part goes between host and path (RFC 9728 §3.1)', async (t) => {
  // the examples of RFC 9728 §3.1
  t.equal(
    protectedResourceMetadataUrl('https://resource.example.com'),
    'https://resource.example.com/.well-known/oauth-protected-resource',
  )
  t.equal(
    protectedResourceMetadataUrl('https://resource.example.com/resource1'),
    'https://resource.example.com/.well-known/oauth-protected-resource/resource1',
  )
  t.equal(
    protectedResourceMetadataUrl('https://mcp.example.com:8443/mcp?tenant=a'),
    'https://mcp.example.com:8443/.well-known/oauth-protected-resource/mcp?tenant=a',
  )
})
