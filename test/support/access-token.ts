import { basic } from './credentials.ts'
import { post } from './flow.ts'
import { addClient, RESOURCE, type TestPostern } from './postern.ts'

/** A client of the client credentials grant. */
export async function addMachine(postern: TestPostern) {
  return addClient(postern, {
    redirectUris: [],
    tokenEndpointAuthMethod: 'client_secret_basic',
    grantTypes: ['client_credentials'],
    name: 'Machine',
  })
}

/** An access token that a client gets for itself. */
export async function obtainMachineToken(
  postern: Pick<TestPostern, 'issuer'>,
  machine: { client_id: string; client_secret?: string },
  resource: string = RESOURCE,
): Promise<string> {
  const authorization = basic(machine.client_id, machine.client_secret ?? '')
  const fields = { grant_type: 'client_credentials', resource }
  const { status, body } = await post(postern, '/token', fields, { authorization })
  if (status !== 200) throw new Error(`answered with ${status}: ${JSON.stringify(body)}`)
  return body.access_token as string
}

/** Makes the access tokens for RESOURCE JWTs. */
export async function issueJwts(postern: Pick<TestPostern, 'db'>, resource: string = RESOURCE): Promise<void> {
  await postern.db.updateTable('resource').set({ token_format: 'jwt' }).where('uri', '=', resource).execute()
}
