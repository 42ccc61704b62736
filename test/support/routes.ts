import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { FastifyInstance } from 'fastify'

export interface Route {
  method: string
  url: string
}

/** Watches a server being made. @returns its table of routes beside what the action gives */
export async function watchRoutes<T>(action: () => Promise<T>): Promise<{ made: T; routes: Route[] }> {
  const routes: Route[] = []
  const onServer = (message: unknown) => {
    const { fastify } = message as { fastify: FastifyInstance }
    fastify.addHook('onRoute', ({ method, url }) => {
      for (const one of [method].flat()) routes.push({ method: one, url })
    })
  }
  subscribe('fastify.initialization', onServer)
  try {
    return { made: await action(), routes }
  } finally {
    unsubscribe('fastify.initialization', onServer)
  }
}
