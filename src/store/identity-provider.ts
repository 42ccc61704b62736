import { type Kysely, sql } from 'kysely'
import type { Database, IdentityProviderRow } from './database.ts'

/** A provider to be added. Its secret is sealed, and bound to its id. */
export type NewIdentityProvider = Omit<IdentityProviderRow, 'created_at' | 'disabled_at'>

/** What an operator may change of a provider. */
export type IdentityProviderChanges = Partial<Omit<NewIdentityProvider, 'id' | 'kind' | 'issuer'>>

/** Adds a provider. @returns `false` when the id is taken */
export async function insertIdentityProvider(db: Kysely<Database>, provider: NewIdentityProvider): Promise<boolean> {
  const { numInsertedOrUpdatedRows } = await db
    .insertInto('identity_provider')
    .values({ ...provider, ...asJson(provider), created_at: sql`now()`, disabled_at: null })
    .onConflict((conflict) => conflict.column('id').doNothing())
    .executeTakeFirst()
  return numInsertedOrUpdatedRows === 1n
}

/** Finds a provider, disabled or not (primary key). */
export async function findIdentityProvider(db: Kysely<Database>, id: string): Promise<IdentityProviderRow | undefined> {
  return db.selectFrom('identity_provider').selectAll().where('id', '=', id).executeTakeFirst()
}

/** All providers, in the order in which they were added. */
export async function listIdentityProviders(db: Kysely<Database>): Promise<IdentityProviderRow[]> {
  return db.selectFrom('identity_provider').selectAll().orderBy('created_at').orderBy('id').execute()
}

/** Changes a provider; when its tokens aren't kept any more, they go. @returns whether there is such a provider */
export async function updateIdentityProvider(
  db: Kysely<Database>,
  id: string,
  changes: IdentityProviderChanges,
): Promise<boolean> {
  return db.transaction().execute(async (trx) => {
    const { numUpdatedRows } = await trx
      .updateTable('identity_provider')
      .set({ ...changes, ...asJson(changes) })
      .where('id', '=', id)
      .executeTakeFirst()
    if (changes.keeps_tokens === false) await trx.deleteFrom('upstream_token').where('provider_id', '=', id).execute()
    return numUpdatedRows === 1n
  })
}

/** Disables or enables a provider: nobody signs in with it, and nothing is exchanged, while it lasts. */
export async function setIdentityProviderDisabled(
  db: Kysely<Database>,
  id: string,
  disabled: boolean,
): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable('identity_provider')
    .set({ disabled_at: disabled ? sql`coalesce(disabled_at, now())` : null })
    .where('id', '=', id)
    .executeTakeFirst()
  return numUpdatedRows === 1n
}

/** Removes a provider with all links to it, the sessions that it began, and its tokens. */
export async function removeIdentityProvider(db: Kysely<Database>, id: string): Promise<boolean> {
  const { numDeletedRows } = await db.deleteFrom('identity_provider').where('id', '=', id).executeTakeFirst()
  return numDeletedRows === 1n
}

/** Replaces a client secret by the same one, sealed anew, unless there is another by now (primary key). */
export async function replaceSealedClientSecret(
  db: Kysely<Database>,
  id: string,
  before: Buffer,
  anew: { sealed: Buffer; sealedWith: Buffer },
): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable('identity_provider')
    .set({ client_secret: anew.sealed, sealed_with: anew.sealedWith })
    .where('id', '=', id)
    .where('client_secret', '=', before)
    .executeTakeFirst()
  return numUpdatedRows === 1n
}

/** The driver would write an array as one of Postgres. */
function asJson(provider: IdentityProviderChanges) {
  const { authorization_parameters: parameters, required_claims: claims } = provider
  return {
    ...(parameters === undefined ? {} : { authorization_parameters: sql<never>`${JSON.stringify(parameters)}::jsonb` }),
    ...(claims === undefined ? {} : { required_claims: sql<never>`${JSON.stringify(claims)}::jsonb` }),
  }
}
