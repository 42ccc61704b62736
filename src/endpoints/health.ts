import type { RouteHandlerMethod } from 'fastify'
import type { Context } from '../context.ts'
import { pingDatabase } from '../store/database.ts'

/** The process runs. Says nothing of the database: restarting the process would not bring that back. */
export function live(): RouteHandlerMethod {
  return async (_request, reply) => reply.header('cache-control', 'no-store').send({ status: 'ok' })
}

/** The process can serve: the database answers. Otherwise 503. */
export function ready(context: Context): RouteHandlerMethod {
  return async (_request, reply) => {
    await pingDatabase(context.db)
    return reply.header('cache-control', 'no-store').send({ status: 'ok' })
  }
}
