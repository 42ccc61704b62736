import { setTimeout as delay } from 'node:timers/promises'
import type { RouteHandlerMethod } from 'fastify'
import type { Context } from '../context.ts'
import { supportedGrantTypes } from '../grants/index.ts'
import { authorizationServerMetadata } from '../protocol/metadata.ts'
import { isDatabaseUnavailable } from '../store/database.ts'
import { listResources } from '../store/resource.ts'

/** For how long a document is served before it is built anew: what an operator changes shows within this time. */
const FRESH_SECONDS = 5

/** For how long a request waits for a new document when there is an old one: a database may hang. */
const PATIENCE_SECONDS = 1

/**
 * Authorization server metadata (RFC 8414 §3), serialised once for all requests of a few seconds. While the
 * database is away, or hangs, the last document stays in use.
 */
export function discovery(context: Context): RouteHandlerMethod {
  let last: string | undefined
  let fresh: Promise<string> | undefined
  const forget = () => {
    fresh = undefined
  }
  const build = async () => {
    try {
      last = await buildDocument(context)
    } catch (error) {
      if (last === undefined || !isDatabaseUnavailable(error)) {
        forget()
        throw error
      }
    }
    setTimeout(forget, FRESH_SECONDS * 1000).unref()
    return last
  }
  return async (_request, reply) => {
    fresh ??= inTime(build(), last)
    return reply
      .type('application/json')
      .header('cache-control', `public, max-age=${FRESH_SECONDS}`)
      .send(await fresh)
  }
}

async function inTime(building: Promise<string>, last: string | undefined): Promise<string> {
  if (last === undefined) return building
  return Promise.race([building, delay(PATIENCE_SECONDS * 1000, last, { ref: false })])
}

async function buildDocument({ config, db, keys }: Context): Promise<string> {
  const resources = await listResources(db)
  const scopes = new Set(resources.flatMap((resource) => resource.scopes.map(({ name }) => name)))
  const facts = {
    issuer: config.issuer,
    grantTypes: supportedGrantTypes(config),
    registration: config.registration !== 'off',
    metadataDocument: config.metadataDocument,
    issParameter: config.issParameter,
    scopes: [...scopes],
    signingAlgorithms: (await keys.published()).algorithms,
  }
  return JSON.stringify(authorizationServerMetadata(facts))
}
