import { canonicalResource, protectedResourceMetadataUrl, resourceCandidates } from '../protocol/resource.ts'
import type { ResourceRow } from '../store/database.ts'
import { bad, describeAnswer, difference, type Finding, good, type Visited, visit } from './finding.ts'

/** What a client sends first. */
const INITIALIZE = {
  jsonrpc: '2.0',
  id: 1,
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'postern-doctor', version: '1' } },
}

const SERVE_DOCUMENT = 'serve there the document that postern resource list --json shows for it'

/**
 * Looks at an MCP server as a client does that has no token yet: its challenge, its metadata (RFC 9728), and
 * whether both fit to what has been added here.
 *
 * @param typed the URL that people type into their client
 * @param resources `undefined` when the database can't say which there are
 */
export async function examineMcpServer(
  typed: string,
  issuer: string,
  resources: ResourceRow[] | undefined,
): Promise<Finding[]> {
  const url = canonicalResource(typed)
  if (url === undefined) {
    return [
      bad('MCP server', `${typed} is not an https or http URL`, 'give the URL that people type into their client'),
    ]
  }
  const answer = await visit(typed, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
    body: JSON.stringify(INITIALIZE),
  })
  if (typeof answer === 'string')
    return [bad('MCP server', `${typed}: ${answer}`, 'start it; else look at DNS, TLS and the proxy')]
  const { finding, challenge } = judgeChallenge(answer, url)
  const { metadata, finding: metadataFinding } = await findMetadata(challenge.get('resource_metadata'), url)
  if (metadata === undefined) return [finding, metadataFinding]
  return [finding, metadataFinding, ...judgeMetadata(metadata, challenge, { url, issuer, resources })]
}

type Challenge = ReadonlyMap<string, string>

function judgeChallenge({ status, headers }: Visited, url: string): { finding: Finding; challenge: Challenge } {
  const header = headers.get('www-authenticate')
  const challenge = readBearerChallenge(header ?? '')
  const right = `WWW-Authenticate: Bearer resource_metadata="${protectedResourceMetadataUrl(url)}"`
  const finding = (() => {
    if (status !== 401)
      return bad('challenge', `it answers ${status} to a request without a token`, `answer 401 with ${right}`)
    if (header === null) return bad('challenge', '401, but without WWW-Authenticate', `add ${right}`)
    if (!challenge.has('resource_metadata')) return bad('challenge', `WWW-Authenticate: ${header}`, `send ${right}`)
    return good('challenge', '401 with WWW-Authenticate: Bearer resource_metadata=…')
  })()
  return { finding, challenge }
}

/** The parameters of a Bearer challenge (RFC 9110 §11.6.1); other challenges may stand before it. */
function readBearerChallenge(header: string): Challenge {
  const [, parameters = ''] = /(?:^|,)\s*Bearer\b(.*)$/is.exec(header) ?? []
  const pairs = parameters.matchAll(/([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/g)
  return new Map(
    [...pairs].map(([, name = '', quoted, plain]) => [
      name.toLowerCase(),
      quoted?.replaceAll(/\\(.)/g, '$1') ?? plain ?? '',
    ]),
  )
}

/** Where the challenge says, or else at the well-known places (RFC 9728 §3.1): with the path, then without. */
async function findMetadata(
  announced: string | undefined,
  url: string,
): Promise<{ finding: Finding; metadata?: Record<string, unknown> }> {
  const wellKnown = protectedResourceMetadataUrl(url)
  const places =
    announced === undefined ? new Set([wellKnown, protectedResourceMetadataUrl(new URL(url).origin)]) : [announced]
  const failures: string[] = []
  for (const place of places) {
    const answer = await visit(place)
    if (typeof answer === 'string') failures.push(`${place}: ${answer}`)
    else if (answer.document === undefined) failures.push(`${place} ${describeAnswer(answer)}`)
    else return { finding: good('metadata', place), metadata: answer.document }
  }
  return { finding: bad('metadata', failures.join('; '), SERVE_DOCUMENT) }
}

function judgeMetadata(
  metadata: Record<string, unknown>,
  challenge: Challenge,
  expected: { url: string; issuer: string; resources: ResourceRow[] | undefined },
): Finding[] {
  const { url, issuer, resources } = expected
  const resource = typeof metadata.resource === 'string' ? metadata.resource : ''
  const servers = texts(metadata.authorization_servers)
  const findings = [
    canonicalResource(resource) === url
      ? good('resource', resource)
      : bad(
          'resource',
          `the document says ${difference(metadata.resource, url)}`,
          'let it say the URL that people type',
        ),
    servers.includes(issuer)
      ? good('authorization server', issuer)
      : bad(
          'authorization server',
          `the document says ${difference(servers.length === 1 ? servers[0] : metadata.authorization_servers, issuer)}`,
          `let authorization_servers hold ${JSON.stringify(issuer)}, byte for byte`,
        ),
  ]
  if (resources === undefined) return findings
  const candidates = resourceCandidates(canonicalResource(resource) === undefined ? url : resource)
  const added = candidates.map((uri) => resources.find((one) => one.uri === uri)).find((one) => one !== undefined)
  if (added === undefined) {
    return [
      ...findings,
      bad('added', `${candidates[0]} has not been added here`, `postern resource add ${candidates[0]}`),
    ]
  }
  findings.push(good('added', `${added.uri} is known here`))
  const asked = new Set([
    ...texts(metadata.scopes_supported),
    ...(challenge.get('scope') ?? '').split(' ').filter((name) => name !== ''),
  ])
  const unknown = [...asked].filter((scope) => !added.scopes.some(({ name }) => name === scope))
  findings.push(
    unknown.length === 0
      ? good('scopes', asked.size === 0 ? 'it names none' : [...asked].join(' '))
      : bad(
          'scopes',
          `it names ${unknown.join(', ')}, unknown here; known are: ${added.scopes.map(({ name }) => name).join(', ') || 'none'}`,
          'let both name the same scopes',
        ),
  )
  return findings
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : []
}
