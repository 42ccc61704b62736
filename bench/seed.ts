import type pg from 'pg'
import { registerClient } from '../src/clients/register.ts'
import { readConfig } from '../src/config.ts'
import { openDatabase } from '../src/store/connection.ts'
import { migrateToLatest } from '../src/store/migrate.ts'
import { insertResource } from '../src/store/resource.ts'
import { insertUser } from '../src/store/user.ts'
import { CREDENTIAL_PREFIXES, hashSecret } from '../src/tokens/secret.ts'
import { createPasswordHasher } from '../src/users/password.ts'
import {
  APPLICATION,
  MACHINE,
  PERSON,
  REDIRECT_URI,
  RESOURCE_SERVER,
  RESOURCE_URI,
  SCOPE,
  SESSION,
} from './accounts.ts'
import { withClient } from './cluster.ts'
import { ACCOUNTS, TABLES } from './limits/statements.ts'
import { type Target, TOKENS_A_MINUTE } from './operations.ts'

/** People who can sign in with a password, for a wave of sign-ins. */
export const WAVE = 50

/** Rows of one statement: progress shows, and no transaction gets huge. */
const CHUNK = 100_000

/** What differs between servers as to who calls them. */
export type Callers = Pick<Target, 'resourceServer' | 'machine' | 'application'>

/** A server's data: its accounts first, then tokens by the chunk, from one number to another. */
export interface Seed {
  accounts(url: string): Promise<Callers>
  /** statements with two parameters, the first and the last number */
  userTokens: (callers: Callers) => string
  clientTokens: (callers: Callers) => string
}

/** Stores `rows` tokens with their families, and a tenth as many tokens of the client itself. */
export async function seedTokens(
  url: string,
  seed: Seed,
  callers: Callers,
  rows: number,
  onProgress: (done: number) => void,
): Promise<{ userTokens: number; clientTokens: number }> {
  const clientTokens = Math.ceil(rows / 10)
  await withClient(url, async (client) => {
    const restoreIndexes = await dropIndexes(client)
    for (const [text, count] of [
      [seed.userTokens(callers), rows],
      [seed.clientTokens(callers), clientTokens],
    ] as const) {
      for (let from = 1; from <= count; from += CHUNK) {
        const to = Math.min(count, from + CHUNK - 1)
        await client.query(text, [from, to])
        if (count === rows) onProgress(to)
      }
    }
    await restoreIndexes()
    await client.query('vacuum analyze') // what autovacuum would do in the midst of a measurement
  })
  return { userTokens: rows, clientTokens }
}

/**
 * Drops indexes while millions of rows are stored: to make them at once takes a fraction of the time. Those that a foreign
 * key refers to can't be dropped.
 *
 * @returns makes them again
 */
async function dropIndexes(client: pg.Client): Promise<() => Promise<void>> {
  const { rows } = await client.query<{ drop: string; make: string }>(`
    select
      case when c.oid is null then format('drop index %s', i.indexrelid::regclass)
        else format('alter table %s drop constraint %I', i.indrelid::regclass, c.conname) end as drop,
      case when c.oid is null then pg_get_indexdef(i.indexrelid)
        else format('alter table %s add constraint %I %s', i.indrelid::regclass, c.conname, pg_get_constraintdef(c.oid))
      end as make
    from pg_index i
    join pg_class t on t.oid = i.indrelid and t.relnamespace = 'public'::regnamespace
    left join pg_constraint c on c.conindid = i.indexrelid and c.contype in ('p', 'u')
    where not exists (select from pg_constraint f where f.conindid = i.indexrelid and f.contype = 'f')`)
  for (const { drop } of rows) await client.query(drop)
  return async () => {
    await client.query(`set maintenance_work_mem = '1GB'`)
    for (const { make } of rows) await client.query(make)
  }
}

/** The numbers of a chunk, each with the random bytes of its token: the same as `tokenText` makes. */
function numbered(kind: 'user' | 'client'): string {
  return `(
    select i, sha256(convert_to('${kind} token ' || i, 'UTF8')) as content
    from generate_series($1::integer, $2::integer) as i
  ) as numbered`
}

/** base64url of bytes. */
const base64url = (bytes: string) => `translate(encode(${bytes}, 'base64'), '+/=', '-_')`

const CONTENT = base64url('content')
const MINUTE = `substring(int4send(i / ${TOKENS_A_MINUTE}) from 2)`
/** Puts the minute over the first bytes of a hash, as `orderedHash` does. */
const ordered = (hash: string) => `overlay(${hash} placing ${MINUTE} from 1)`
const BODY = `'${CREDENTIAL_PREFIXES.accessToken}' || ${base64url(`${MINUTE} || content`)}`
const CRC = `crc32(convert_to(${BODY}, 'UTF8'))`
const SIGNED_CRC = `(case when ${CRC} > 2147483647 then ${CRC} - 4294967296 else ${CRC} end)::integer`
const POSTERN_HASH = ordered(`sha256(convert_to(${BODY} || ${base64url(`int4send(${SIGNED_CRC})`)}, 'UTF8'))`)
const PLAIN_HASH = `sha256(convert_to(${CONTENT}, 'UTF8'))`

const LASTS = `now() + interval '1 day'`

const incarnation = (client: string) => `(select incarnation from client where id = '${client}')`

export const POSTERN: Seed = {
  accounts: seedPostern,
  userTokens: ({ application, resourceServer }) => `
    with made as materialized (
      select i, gen_random_uuid() as family_id, ${POSTERN_HASH} as token_hash from ${numbered('user')}
    ), families as (
      insert into token_family (
        id, client_id, client_incarnation, user_id, resource_id, scope, lineage_hash, generation, secret_hash, superseded_secret_hashes,
        superseded_at, access_token_hash, created_at, last_used_at, expires_at, ends_at,
        removal_check_at, approved_at
      )
      select family_id, '${application}', ${incarnation(application)}, '${PERSON.id}', '${resourceServer.id}', '{${SCOPE}}',
        ${ordered(`sha256(convert_to('lineage ' || i, 'UTF8'))`)}, 0, sha256(convert_to('secret ' || i, 'UTF8')), '{}', '{}',
        token_hash, now(), now(), ${LASTS}, now() + interval '1 year', ${LASTS}, now()
      from made
    )
    insert into access_token (
      token_hash, family_id, client_id, client_incarnation, user_id, resource_id, scope, issued_at, expires_at
    )
    select token_hash, family_id, '${application}', ${incarnation(application)}, '${PERSON.id}', '${resourceServer.id}',
      '${SCOPE}', now(), ${LASTS}
    from made`,
  clientTokens: ({ machine, resourceServer }) => `
    insert into access_token (token_hash, client_id, client_incarnation, resource_id, scope, issued_at, expires_at)
    select ${POSTERN_HASH}, '${machine.id}', ${incarnation(machine.id)}, '${resourceServer.id}', '${SCOPE}', now(), ${LASTS}
    from ${numbered('client')}`,
}

/** Everything by the functions that Postern itself uses. */
async function seedPostern(url: string): Promise<Callers> {
  const config = readConfig({ DATABASE_URL: url })
  const db = openDatabase({ connectionString: url }, { poolSize: 1, onError: () => {}, patient: true })
  try {
    await migrateToLatest(db)
    const passwords = createPasswordHasher()
    const passwordHash = await passwords.hash(PERSON.password)
    const person = { id: PERSON.id, usernameKey: PERSON.username, username: PERSON.username }
    await insertUser(db, { ...person, passwordHash, isAdministrator: true })
    for (let number = 1; number <= WAVE; number += 1) {
      const username = `person${number}`
      const id = `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`
      await insertUser(db, { id, username, usernameKey: username, passwordHash, isAdministrator: false })
    }
    await insertResource(db, {
      id: RESOURCE_SERVER.id,
      uri: RESOURCE_URI,
      name: null,
      secretHash: hashSecret(RESOURCE_SERVER.secret),
      scopes: [{ name: SCOPE, description: 'Read your data' }],
      isDefault: true,
    })
    const add = (
      tokenEndpointAuthMethod: 'none' | 'client_secret_basic',
      grantTypes: string[],
      redirectUris: string[],
    ) =>
      registerClient(
        { config, db },
        {
          name: 'Bench',
          redirectUris,
          tokenEndpointAuthMethod,
          grantTypes,
          defaultScope: undefined,
          dpopBoundAccessTokens: false,
          description: {},
        },
        { registration: 'operator', bounds: { boundScope: null, resourceIds: null } },
      )
    const application = await add('none', ['authorization_code', 'refresh_token'], [REDIRECT_URI])
    const machine = await add('client_secret_basic', ['client_credentials'], [])
    return {
      resourceServer: RESOURCE_SERVER,
      machine: { id: machine.client_id, secret: machine.client_secret ?? '' },
      application: application.client_id,
    }
  } finally {
    await db.destroy()
  }
}

/** Accounts that are the same everywhere, made by statements. */
function accountsBy(text: string): Seed['accounts'] {
  return async (url) => {
    await withClient(url, (client) => client.query(text))
    return { resourceServer: RESOURCE_SERVER, machine: MACHINE, application: APPLICATION }
  }
}

export const LIMIT: Seed = {
  accounts: accountsBy(`${TABLES} ${ACCOUNTS}`),
  userTokens: () => `
    with made as materialized (select i, ${PLAIN_HASH} as token_hash from ${numbered('user')}), families as (
      insert into family (lineage_hash, client_id, user_id, generation, secret_hash, access_token_hash, expires_at)
      select sha256(convert_to('lineage ' || i, 'UTF8')), '${APPLICATION}', '${PERSON.id}', 0,
        sha256(convert_to('secret ' || i, 'UTF8')), token_hash, ${LASTS}
      from made
    )
    insert into access_token (token_hash, client_id, user_id, resource_id, scope, issued_at, expires_at)
    select token_hash, '${APPLICATION}', '${PERSON.id}', '${RESOURCE_SERVER.id}', '${SCOPE}', now(), ${LASTS}
    from made`,
  clientTokens: () => `
    insert into access_token (token_hash, client_id, resource_id, scope, issued_at, expires_at)
    select ${PLAIN_HASH}, '${MACHINE.id}', '${RESOURCE_SERVER.id}', '${SCOPE}', now(), ${LASTS}
    from ${numbered('client')}`,
}

const EPOCH = 'floor(extract(epoch from now()))::bigint'
const PAYLOAD = `'iat', ${EPOCH}, 'exp', ${EPOCH} + 86400, 'scope', '${SCOPE}', 'extra', '{}'::jsonb`

export const OIDC_PROVIDER: Seed = {
  accounts: accountsBy(`
    create table oidc_payload (
      id text, type text, payload jsonb not null, grant_id text, user_code text, uid text, expires_at timestamptz,
      consumed_at timestamptz, primary key (id, type)
    );
    create index on oidc_payload (grant_id);
    create index on oidc_payload (user_code);
    create index on oidc_payload (uid);
    create index on oidc_payload (expires_at);`),
  userTokens: () => `
    with made as materialized (
      select ${CONTENT} as id, gen_random_uuid()::text as grant_id from ${numbered('user')}
    ), grants as (
      insert into oidc_payload (id, type, payload, expires_at)
      select grant_id, 'Grant', jsonb_build_object('kind', 'Grant', 'jti', grant_id, 'iat', ${EPOCH},
        'exp', ${EPOCH} + 86400, 'accountId', '${PERSON.id}', 'clientId', '${APPLICATION}',
        'openid', jsonb_build_object('scope', '${SCOPE}')), ${LASTS}
      from made
    )
    insert into oidc_payload (id, type, payload, grant_id, expires_at)
    select id, 'AccessToken', jsonb_build_object('kind', 'AccessToken', 'jti', id, 'grantId', grant_id,
      'accountId', '${PERSON.id}', 'clientId', '${APPLICATION}', 'gty', 'authorization_code', ${PAYLOAD}),
      grant_id, ${LASTS}
    from made`,
  clientTokens: () => `
    insert into oidc_payload (id, type, payload, expires_at)
    select ${CONTENT}, 'ClientCredentials', jsonb_build_object('kind', 'ClientCredentials', 'jti', ${CONTENT},
      'clientId', '${MACHINE.id}', ${PAYLOAD}), ${LASTS}
    from ${numbered('client')}`,
}

export const OAUTH2_SERVER: Seed = {
  accounts: accountsBy(`
    create table client (
      id text primary key, secret_hash text, redirect_uris text[] not null, grants text[] not null
    );
    create table "user" (id uuid primary key, username text not null);
    create table session (id text primary key, user_id uuid not null, expires_at timestamptz not null);
    create table consent (user_id uuid, client_id text, primary key (user_id, client_id));
    create table token (
      access_token text primary key, access_token_expires_at timestamptz not null, refresh_token text unique,
      refresh_token_expires_at timestamptz, scope text[] not null, client_id text not null, user_id uuid,
      issued_at timestamptz not null
    );
    create table code (
      code text primary key, expires_at timestamptz not null, redirect_uri text not null, scope text[] not null,
      challenge text, challenge_method text, client_id text not null, user_id uuid not null
    );
    insert into client values
      ('${RESOURCE_SERVER.id}', encode(sha256('${RESOURCE_SERVER.secret}'), 'hex'), '{}', '{}'),
      ('${MACHINE.id}', encode(sha256('${MACHINE.secret}'), 'hex'), '{}', '{client_credentials}'),
      ('${APPLICATION}', null, '{${REDIRECT_URI}}', '{authorization_code,refresh_token}');
    insert into "user" values ('${PERSON.id}', '${PERSON.username}');
    insert into session values ('${SESSION}', '${PERSON.id}', ${LASTS});
    insert into consent values ('${PERSON.id}', '${APPLICATION}');`),
  userTokens: () => `
    insert into token
    select ${CONTENT}, ${LASTS}, gen_random_uuid()::text, ${LASTS}, '{${SCOPE}}', '${APPLICATION}', '${PERSON.id}', now()
    from ${numbered('user')}`,
  clientTokens: () => `
    insert into token select ${CONTENT}, ${LASTS}, null, null, '{${SCOPE}}', '${MACHINE.id}', null, now()
    from ${numbered('client')}`,
}
