import type { ClientRow } from '../store/database.ts'

/** The ways in which a client may authenticate: several when its metadata document leaves it the choice. */
export function authenticationMethods(client: ClientRow): string[] {
  return client.token_endpoint_auth_methods ?? [client.token_endpoint_auth_method]
}

/** Whether a client proves at every request that it is the one: nobody can pose as it who only knows its identifier. */
export function isConfidential(client: ClientRow): boolean {
  return client.token_endpoint_auth_method !== 'none'
}

/** Whether a client has to push its authorization requests (RFC 9126 §6): an operator decides, or else its metadata. */
export function mustPush(client: ClientRow): boolean {
  return client.must_push_requests ?? client.require_pushed_authorization_requests
}
