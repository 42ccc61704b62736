import { type Kysely, sql, type Transaction } from 'kysely'
import type { Database, UserRow } from './database.ts'

/** An account of a person at a provider. */
export interface UpstreamIdentity {
  providerId: string
  subject: string
  /** how the provider calls the person: an address or a name */
  displayName: string
}

/** Finds the user who is linked to an account (primary key), and notes under which name. */
export async function useUpstreamAccount(
  db: Kysely<Database>,
  { providerId, subject, displayName }: UpstreamIdentity,
): Promise<UserRow | undefined> {
  const { rows } = await sql<UserRow>`
    with used as (
      update upstream_account set display_name = ${displayName}
      where provider_id = ${providerId} and subject = ${subject}
      returning user_id
    )
    select u.* from used join "user" u on u.id = used.user_id`.execute(db)
  return rows[0]
}

/** Lets one sign-in at a time decide what becomes of an account that nobody is linked to, until the transaction ends. */
export async function lockUpstreamIdentity(trx: Transaction<Database>, identity: UpstreamIdentity): Promise<void> {
  await sql`
    select pg_advisory_xact_lock(hashtextextended(${`${identity.providerId} ${identity.subject}`}, 7079839))`.execute(
    trx,
  )
}

/** Lets one sign-in at a time decide whose a username is, until the transaction ends. */
export async function lockUsername(trx: Transaction<Database>, usernameKey: string): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended(${usernameKey}, 7079840))`.execute(trx)
}

/** Links an account to a user. @returns `false` when it, or another one of this provider, is linked already */
export async function linkUpstreamAccount(
  db: Kysely<Database>,
  userId: string,
  { providerId, subject, displayName }: UpstreamIdentity,
): Promise<boolean> {
  const { rows } = await sql`
    insert into upstream_account (provider_id, subject, user_id, display_name, linked_at)
    values (${providerId}, ${subject}, ${userId}, ${displayName}, now())
    on conflict do nothing
    returning 1`.execute(db)
  return rows.length === 1
}

/** An account as its person sees it. */
export interface LinkedAccount {
  providerId: string
  providerName: string
  displayName: string
  linkedAt: Date
}

/** The accounts of a user (unique constraint). */
export async function listUpstreamAccounts(db: Kysely<Database>, userId: string): Promise<LinkedAccount[]> {
  const { rows } = await sql<LinkedAccount>`
    select a.provider_id as "providerId", p.name as "providerName", a.display_name as "displayName",
      a.linked_at as "linkedAt"
    from upstream_account a join identity_provider p on p.id = a.provider_id
    where a.user_id = ${userId}
    order by a.linked_at, a.provider_id`.execute(db)
  return rows
}

/**
 * Ends a link, with all that came of it: the tokens that the provider issued, the sessions that began there, and the
 * handles of resource servers. What the person agreed to before doesn't count there any more. The user is locked, so
 * that of two links one stays.
 *
 * @param passwordSignIn whether a password is a way to sign in
 * @returns `false` when nothing was ended: it isn't there, or it is the person's only way to sign in
 */
export async function unlinkUpstreamAccount(
  db: Kysely<Database>,
  { userId, providerId }: { userId: string; providerId: string },
  passwordSignIn: boolean,
): Promise<boolean> {
  return db.transaction().execute(async (trx) => {
    await sql`select from "user" where id = ${userId} for no key update`.execute(trx)
    const { rows } = await sql`
      delete from upstream_account a using "user" u
      where a.user_id = ${userId} and a.provider_id = ${providerId} and u.id = a.user_id and (
        (${passwordSignIn} and u.password_hash is not null)
        or exists (
          select from upstream_account o join identity_provider p on p.id = o.provider_id and p.disabled_at is null
          where o.user_id = a.user_id and o.provider_id <> a.provider_id
        )
      )
      returning 1`.execute(trx)
    if (rows.length === 0) return false
    await sql`delete from session where user_id = ${userId} and provider_id = ${providerId}`.execute(trx)
    await sql`
      delete from upstream_handle h using token_family f
      where f.id = h.family_id and f.user_id = ${userId} and h.provider_id = ${providerId}`.execute(trx)
    await sql`
      insert into upstream_unlinking (user_id, provider_id, unlinked_at)
      values (${userId}, ${providerId}, clock_timestamp())
      on conflict (user_id, provider_id) do update set unlinked_at = excluded.unlinked_at`.execute(trx)
    return true
  })
}
