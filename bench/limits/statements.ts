/**
 * What the two bare limits ask of Postgres: one statement for each operation, on tables that hold no more than the
 * answer needs. There is no index but the primary keys, no foreign key, and nothing that would be cleaned up.
 */
import {
  APPLICATION,
  MACHINE,
  PERSON,
  REDIRECT_URI,
  RESOURCE_SERVER,
  RESOURCE_URI,
  SCOPE,
  SESSION,
} from '../accounts.ts'

/** One statement for one entry, or for any number of them. */
export interface Statement {
  name: string
  /** types of Postgres by name, in the order in which the values are given */
  columns: Record<string, string>
  /** what two entries of one batch must not have in common */
  key?: string
  /**
   * @param presented a relation of the entries, with `columns` and their number `entry`
   */
  text: (presented: string) => string
}

export const TABLES = `
  create table resource (id uuid primary key, uri text not null, secret_hash bytea not null);
  create table client (id text primary key, secret_hash bytea, metadata jsonb not null);
  create table "user" (id uuid primary key, username text not null);
  create table session (id_hash bytea primary key, user_id uuid not null, expires_at timestamptz not null);
  create table consent (user_id uuid, client_id text, primary key (user_id, client_id));
  create table code (
    code_hash bytea primary key, client_id text not null, user_id uuid not null, redirect_uri text not null,
    code_challenge text not null, expires_at timestamptz not null, redeemed_at timestamptz
  );
  create table family (
    lineage_hash bytea primary key, client_id text not null, user_id uuid not null, generation bigint not null,
    secret_hash bytea not null, access_token_hash bytea not null, expires_at timestamptz not null
  );
  create table access_token (
    token_hash bytea primary key, client_id text not null, user_id uuid, resource_id uuid not null,
    scope text not null, issued_at timestamptz not null, expires_at timestamptz not null
  );`

const NEW_TOKEN = `'${RESOURCE_SERVER.id}'::uuid, '${SCOPE}', now(), now() + interval '1 hour'`

export const lookUp: Statement = {
  name: 'look_up',
  columns: { resource_id: 'uuid', token_hash: 'bytea' },
  text: (presented) => `
    select p.entry, r.secret_hash, r.uri, t.client_id, t.user_id, u.username, t.scope,
      floor(date_part('epoch', t.issued_at)) as iat, floor(date_part('epoch', t.expires_at)) as exp
    from ${presented} join resource r on r.id = p.resource_id
    left join access_token t on t.token_hash = p.token_hash and t.resource_id = r.id and t.expires_at > now()
    left join "user" u on u.id = t.user_id`,
}

export const issue: Statement = {
  name: 'issue',
  columns: { client_id: 'text', secret_hash: 'bytea', token_hash: 'bytea' },
  text: (presented) => `
    with accepted as (
      select p.entry, p.token_hash, c.id
      from ${presented} join client c on c.id = p.client_id and c.secret_hash = p.secret_hash
    ), issued as (
      insert into access_token (token_hash, client_id, resource_id, scope, issued_at, expires_at)
      select token_hash, id, ${NEW_TOKEN} from accepted
    )
    select entry from accepted`,
}

export const rotate: Statement = {
  name: 'rotate',
  columns: {
    lineage_hash: 'bytea',
    generation: 'bigint',
    secret_hash: 'bytea',
    client_id: 'text',
    new_secret_hash: 'bytea',
    token_hash: 'bytea',
  },
  key: 'lineage_hash',
  text: (presented) => `
    with rotated as (
      update family f set generation = f.generation + 1, secret_hash = p.new_secret_hash,
        access_token_hash = p.token_hash, expires_at = now() + interval '30 days'
      from ${presented} join client c on c.id = p.client_id
      where f.lineage_hash = p.lineage_hash and f.generation = p.generation and f.secret_hash = p.secret_hash
        and f.client_id = p.client_id and f.expires_at > now()
      returning p.entry, p.token_hash, f.client_id, f.user_id, old.access_token_hash as superseded_hash
    ), superseded as (
      delete from access_token a using rotated where a.token_hash = rotated.superseded_hash
    ), issued as (
      insert into access_token (token_hash, client_id, user_id, resource_id, scope, issued_at, expires_at)
      select token_hash, client_id, user_id, ${NEW_TOKEN} from rotated
    )
    select entry from rotated`,
}

export const approve: Statement = {
  name: 'approve',
  columns: {
    session_hash: 'bytea',
    client_id: 'text',
    redirect_uri: 'text',
    code_challenge: 'text',
    code_hash: 'bytea',
  },
  text: (presented) => `
    with approved as (
      select p.*, s.user_id
      from ${presented} join session s on s.id_hash = p.session_hash and s.expires_at > now()
      join client c on c.id = p.client_id and c.metadata -> 'redirect_uris' ? p.redirect_uri
      join consent k on k.user_id = s.user_id and k.client_id = c.id
    ), issued as (
      insert into code (code_hash, client_id, user_id, redirect_uri, code_challenge, expires_at)
      select code_hash, client_id, user_id, redirect_uri, code_challenge, now() + interval '10 minutes' from approved
    )
    select entry from approved`,
}

export const redeem: Statement = {
  name: 'redeem',
  columns: {
    code_hash: 'bytea',
    client_id: 'text',
    redirect_uri: 'text',
    code_challenge: 'text',
    lineage_hash: 'bytea',
    secret_hash: 'bytea',
    token_hash: 'bytea',
  },
  key: 'code_hash',
  text: (presented) => `
    with redeemed as (
      update code c set redeemed_at = now()
      from ${presented} join client on client.id = p.client_id
      where c.code_hash = p.code_hash and c.client_id = p.client_id and c.redirect_uri = p.redirect_uri
        and c.code_challenge = p.code_challenge and c.redeemed_at is null and c.expires_at > now()
      returning p.entry, p.lineage_hash, p.secret_hash, p.token_hash, c.client_id, c.user_id
    ), started as (
      insert into family (lineage_hash, client_id, user_id, generation, secret_hash, access_token_hash, expires_at)
      select lineage_hash, client_id, user_id, 0, secret_hash, token_hash, now() + interval '30 days' from redeemed
    ), issued as (
      insert into access_token (token_hash, client_id, user_id, resource_id, scope, issued_at, expires_at)
      select token_hash, client_id, user_id, ${NEW_TOKEN} from redeemed
    )
    select entry from redeemed`,
}

export const register: Statement = {
  name: 'register',
  columns: { id: 'text', metadata: 'text' },
  text: (presented) => `
    with presented as (select p.entry, p.id, p.metadata from ${presented}), added as (
      insert into client (id, metadata) select id, metadata::jsonb from presented
    )
    select entry from presented`,
}

/** The accounts of the bench. */
export const ACCOUNTS = `
  insert into resource values ('${RESOURCE_SERVER.id}', '${RESOURCE_URI}', sha256('${RESOURCE_SERVER.secret}'));
  insert into client values
    ('${MACHINE.id}', sha256('${MACHINE.secret}'), '{}'),
    ('${APPLICATION}', null, '{"redirect_uris": ["${REDIRECT_URI}"]}');
  insert into "user" values ('${PERSON.id}', '${PERSON.username}');
  insert into session values (sha256('${SESSION}'), '${PERSON.id}', now() + interval '1 day');
  insert into consent values ('${PERSON.id}', '${APPLICATION}');`
