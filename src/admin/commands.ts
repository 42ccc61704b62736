import { type Command, InvalidArgumentError, Option } from 'commander'
import { readConfig } from '../config.ts'
import { GRANT_TYPES } from '../grants/index.ts'
import { CLIENT_AUTHENTICATION_METHODS } from '../protocol/client-authentication.ts'
import { SIGNING_ALGORITHMS } from '../protocol/signing-key.ts'
import { TOKEN_FORMATS } from '../store/database.ts'
import {
  type ClientChangeOptions,
  type ClientOptions,
  clientAdd,
  clientList,
  clientRemove,
  clientRotateSecret,
  clientSet,
  clientSetDisabled,
  clientShow,
} from './client.ts'
import { migrateCommand } from './database.ts'
import { demandHealth, doctor } from './doctor.ts'
import { type GrantOptions, grantList, grantRevoke } from './grant.ts'
import { type KeyRotateOptions, keyList, keyRotate } from './key.ts'
import { type Answer, printAnswer } from './output.ts'
import {
  type ProviderChangeOptions,
  type ProviderOptions,
  providerAdd,
  providerCheck,
  providerList,
  providerRemove,
  providerSet,
  providerSetDisabled,
  providerShow,
} from './provider.ts'
import { PRESETS } from './provider-preset.ts'
import {
  type ResourceChangeOptions,
  type ResourceOptions,
  resourceAdd,
  resourceList,
  resourceRemove,
  resourceRotateSecret,
  resourceSet,
} from './resource.ts'
import { type UserOptions, userAdd, userList, userRemove, userSetDisabled, userSetPassword } from './user.ts'

const EXAMPLE_ID = '0c5a4f6e-9d1f-4f0e-8f5c-3a1d0f4f2b7e'

/** Adds all commands but the one that serves. */
export function addAdminCommands(postern: Command): void {
  command(
    postern,
    'migrate',
    'Bring the database to the newest version, as the server does at start.',
    'postern migrate',
  ).action(answer(() => migrateCommand(readConfig())))

  command(
    postern,
    'doctor',
    'Check whether clients can connect, and say what to do.',
    'postern doctor https://mcp.example.com/mcp',
  )
    .argument('[MCP-URL]', 'check this MCP server too, as a client sees it that has no token yet')
    .action(answer((mcpUrl: string | undefined) => doctor(readConfig, mcpUrl), demandHealth))

  const user = group(postern, 'user', 'People who sign in.')

  command(
    user,
    'add',
    'Add a user; the password is asked, or read from standard input.',
    'postern user add alice --admin',
  )
    .argument('<NAME>', 'username')
    .option('--admin', 'make the user an administrator')
    .action(answer((name: string, options: UserOptions) => userAdd(readConfig(), name, options)))

  command(user, 'list', 'List all users.', 'postern user list').action(answer(() => userList(readConfig())))

  command(user, 'disable', 'Disable a user: no sign-in, and no token holds.', 'postern user disable alice')
    .argument('<NAME>', 'username')
    .action(answer((name: string) => userSetDisabled(readConfig(), name, true)))

  command(user, 'enable', 'Enable a disabled user.', 'postern user enable alice')
    .argument('<NAME>', 'username')
    .action(answer((name: string) => userSetDisabled(readConfig(), name, false)))

  command(
    user,
    'set-password',
    'Change a password; it is asked, or read from standard input.',
    'postern user set-password alice',
  )
    .argument('<NAME>', 'username')
    .action(answer((name: string) => userSetPassword(readConfig(), name)))

  command(user, 'remove', 'Remove a user with all grants.', 'postern user remove alice')
    .argument('<NAME>', 'username')
    .action(answer((name: string) => userRemove(readConfig(), name)))

  const resource = group(postern, 'resource', 'Resource servers: the MCP servers and other APIs that tokens are for.')

  command(
    resource,
    'add',
    'Add a resource server; answers with its credentials and its metadata document.',
    'postern resource add https://mcp.example.com/mcp --name "Example" --scope read="Read your data" --scope write',
  )
    .argument('<URI>', 'its address, as people type it into their client')
    .option('--name <NAME>', 'its name, for people')
    .option('--scope <NAME=DESCRIPTION>', 'a scope and what it allows, in words for people; may be repeated', repeated)
    .option('--default', 'tokens are for it when a client names no resource; the first one has this in any case')
    .addOption(
      new Option(
        '--token-format <FORMAT>',
        'what its access tokens are: random values, or JWTs that it can check by itself (default: opaque)',
      ).choices(TOKEN_FORMATS),
    )
    .action(answer((uri: string, options: ResourceOptions) => resourceAdd(readConfig(), uri, options)))

  lifetimes(
    command(
      resource,
      'set',
      'Change a resource server; what is not named stays.',
      'postern resource set https://mcp.example.com/mcp --access-token-seconds 600 --scope read="Read your data"',
    )
      .argument('<URI>', 'its address, or its client_id')
      .option('--name <NAME>', 'its name, for people')
      .option('--scope <NAME=DESCRIPTION>', 'all its scopes from now on; may be repeated', repeated)
      .option('--default', 'tokens are for it when a client names no resource')
      .option(
        '--allow-upstream <PROVIDER[:offline]>',
        'it may act at this identity provider for people who agree; with :offline also while they are away; may be repeated',
        repeated,
      )
      .option('--disallow-upstream <PROVIDER>', 'it may not any more; may be repeated', repeated)
      .addOption(new Option('--token-format <FORMAT>', 'of new access tokens').choices(TOKEN_FORMATS)),
  ).action(answer((reference: string, options: ResourceChangeOptions) => resourceSet(readConfig(), reference, options)))

  command(resource, 'list', 'List all resource servers.', 'postern resource list').action(
    answer(() => resourceList(readConfig())),
  )

  command(
    resource,
    'rotate-secret',
    'Make a new secret; the old one is refused at once.',
    'postern resource rotate-secret https://mcp.example.com/mcp',
  )
    .argument('<URI>', 'its address, or its client_id')
    .action(answer((reference: string) => resourceRotateSecret(readConfig(), reference)))

  command(
    resource,
    'remove',
    'Remove a resource server with all grants for it.',
    'postern resource remove https://mcp.example.com/mcp',
  )
    .argument('<URI>', 'its address, or its client_id')
    .action(answer((reference: string) => resourceRemove(readConfig(), reference)))

  const provider = group(
    postern,
    'provider',
    'Identity providers: people sign in with the account that they have there.',
  )

  providerOptions(
    command(
      provider,
      'add',
      'Add a provider; its client secret is asked, or read from standard input, unless it is in a file.',
      'postern provider add company --preset keycloak --issuer https://sso.example.com/realms/staff --client-id postern --create-users',
    )
      .argument('<ID>', 'lower-case letters, digits and hyphens, at most 32: it becomes part of the redirect URI')
      .addOption(new Option('--preset <PRESET>', 'what kind of provider it is').choices(PRESETS).makeOptionMandatory())
      .requiredOption('--client-id <ID>', 'the client that was registered for Postern there')
      .option('--issuer <URL>', 'as the provider calls itself; google, github and entra are known')
      .option('--tenant <UUID>', 'for entra: the directory (tenant) ID'),
  ).action(answer((id: string, options: ProviderOptions) => providerAdd(readConfig(), id, options)))

  providerOptions(
    command(
      provider,
      'set',
      'Change a provider; what is not named stays, and "" takes back.',
      'postern provider set company --allow-domain example.com --no-create-users',
    )
      .argument('<ID>', 'as in postern provider list')
      .option('--client-id <ID>', 'the client that was registered for Postern there'),
  )
    .option('--no-trust-email', 'link nobody by e-mail address') // after the others, which then have no default
    .option('--no-create-users', 'create no users')
    .option('--no-keep-tokens', 'keep no tokens from the next sign-in on')
    .action(answer((id: string, options: ProviderChangeOptions) => providerSet(readConfig(), id, options)))

  command(provider, 'list', 'List all providers.', 'postern provider list').action(
    answer(() => providerList(readConfig())),
  )

  command(provider, 'show', 'Show everything about a provider but its secret.', 'postern provider show company')
    .argument('<ID>', 'as in postern provider list')
    .action(answer((id: string) => providerShow(readConfig(), id)))

  command(provider, 'check', 'Ask a provider, and say what is wrong.', 'postern provider check company')
    .argument('<ID>', 'as in postern provider list')
    .action(answer((id: string) => providerCheck(readConfig(), id), demandHealth))

  command(
    provider,
    'disable',
    'Disable a provider: nobody signs in with it, and nothing is exchanged.',
    'postern provider disable company',
  )
    .argument('<ID>', 'as in postern provider list')
    .action(answer((id: string) => providerSetDisabled(readConfig(), id, true)))

  command(provider, 'enable', 'Enable a disabled provider.', 'postern provider enable company')
    .argument('<ID>', 'as in postern provider list')
    .action(answer((id: string) => providerSetDisabled(readConfig(), id, false)))

  command(
    provider,
    'remove',
    'Remove a provider with all links to it, the sessions that began there, and its tokens.',
    'postern provider remove company',
  )
    .argument('<ID>', 'as in postern provider list')
    .action(answer((id: string) => providerRemove(readConfig(), id)))

  const client = group(postern, 'client', 'Clients: most register by themselves; these commands add and govern them.')

  command(
    client,
    'add',
    'Add a client; answers with its credentials.',
    'postern client add --name "My tool" --redirect-uri http://localhost/callback --auth-method none --scope "read write"',
  )
    .requiredOption('--name <NAME>', 'its name, for people')
    .option('--redirect-uri <URI>', 'where people are sent back to; may be repeated', repeated)
    .option(
      '--grant <GRANT>',
      `a grant that it may use: ${GRANT_TYPES.join(', ')} (default: authorization_code, refresh_token); may be repeated`,
      grants,
    )
    .option('--scope <SCOPES>', 'the most that it may get (default: no bound); may be repeated', repeated)
    .option(
      '--resource <URI>',
      'a resource server that it is bound to (default: none, it may use all); may be repeated',
      repeated,
    )
    .addOption(new Option('--auth-method <METHOD>', 'how it authenticates').choices(CLIENT_AUTHENTICATION_METHODS))
    .option('--jwks <FILE>', 'for private_key_jwt: a file with its public keys, {"keys":[…]}')
    .option('--jwks-uri <URL>', 'for private_key_jwt: where it publishes its keys; they may change there')
    .option('--dpop-bound', 'it gets tokens with a DPoP proof alone, bound to its key (default: it may choose)')
    .option('--require-par', 'it has to push its authorization requests (RFC 9126; default: it may choose)')
    .action(answer((options: ClientOptions) => clientAdd(readConfig(), options)))

  lifetimes(
    command(
      client,
      'set',
      'Change what an operator decides about a client; what is not named stays.',
      `postern client set ${EXAMPLE_ID} --refresh-grace-seconds 0 --require-par`,
    )
      .argument('<ID>', 'client_id')
      .option('--scope <SCOPES>', 'the most that it may get ("" for no bound); may be repeated', repeated)
      .option('--require-par', 'it has to push its authorization requests (RFC 9126)')
      .option('--no-require-par', 'it may send them in the link'),
  ).action(answer((id: string, options: ClientChangeOptions) => clientSet(readConfig(), id, options)))

  command(client, 'list', 'List all clients.', 'postern client list').action(answer(() => clientList(readConfig())))

  command(client, 'show', 'Show everything about a client but its secret.', `postern client show ${EXAMPLE_ID}`)
    .argument('<ID>', 'client_id')
    .action(answer((id: string) => clientShow(readConfig(), id)))

  command(
    client,
    'rotate-secret',
    'Make a new secret; the old one is refused at once.',
    `postern client rotate-secret ${EXAMPLE_ID}`,
  )
    .argument('<ID>', 'client_id')
    .action(answer((id: string) => clientRotateSecret(readConfig(), id)))

  command(
    client,
    'disable',
    'Disable a client: it gets nothing, and none of its tokens holds.',
    `postern client disable ${EXAMPLE_ID}`,
  )
    .argument('<ID>', 'client_id')
    .action(answer((id: string) => clientSetDisabled(readConfig(), id, true)))

  command(client, 'enable', 'Enable a disabled client.', `postern client enable ${EXAMPLE_ID}`)
    .argument('<ID>', 'client_id')
    .action(answer((id: string) => clientSetDisabled(readConfig(), id, false)))

  command(client, 'remove', 'Remove a client with all grants that it got.', `postern client remove ${EXAMPLE_ID}`)
    .argument('<ID>', 'client_id')
    .action(answer((id: string) => clientRemove(readConfig(), id)))

  const grant = group(postern, 'grant', 'What people have granted: each installation of a client by itself.')

  command(grant, 'list', 'List grants, the newest first.', 'postern grant list --user alice')
    .option('--user <NAME>', 'only those of this user')
    .option('--client <ID>', 'only those of this client')
    .action(answer((options: GrantOptions) => grantList(readConfig(), options)))

  command(
    grant,
    'revoke',
    'End a grant: its tokens hold no longer, and the client has to ask again.',
    `postern grant revoke ${EXAMPLE_ID}`,
  )
    .argument('<ID>', 'as in postern grant list')
    .action(answer((id: string) => grantRevoke(readConfig(), id)))

  const key = group(postern, 'key', 'Keys that JWT access tokens are signed with; they change by themselves.')

  command(key, 'list', 'List all signing keys.', 'postern key list').action(answer(() => keyList(readConfig())))

  command(
    key,
    'rotate',
    'Make a new signing key; it is published before it signs, and the old one stays while its tokens live.',
    'postern key rotate --algorithm EdDSA',
  )
    .addOption(
      new Option('--algorithm <ALGORITHM>', 'of the new key (default: POSTERN_SIGNING_ALGORITHM)').choices(
        SIGNING_ALGORITHMS,
      ),
    )
    .option('--now', 'in an emergency: it signs at once, all other keys are withdrawn, and so is what they signed')
    .action(answer((options: KeyRotateOptions) => keyRotate(readConfig(), options)))
}

/** A command that does something, with an example in its help. */
function command(parent: Command, name: string, description: string, example: string): Command {
  return parent
    .command(name)
    .description(description)
    .option('--json', 'answer in JSON')
    .addHelpText('after', `\nExample:\n  ${example}`)
}

/** Adds the options that set lifetimes: a client's own come before its resource server's, and both before the settings. */
function lifetimes(command: Command): Command {
  return command
    .option('--access-token-seconds <SECONDS>', 'lifetime of access tokens; "default" for the setting')
    .option('--refresh-token-seconds <SECONDS>', 'a refresh token that is not used for this long ends')
    .option('--family-seconds <SECONDS>', 'a grant ends after this time')
    .option('--refresh-grace-seconds <SECONDS>', 'a superseded refresh token still gets the current pair for this long')
}

/** Adds the options of a provider that can be changed later. */
function providerOptions(command: Command): Command {
  return command
    .option('--client-secret-file <FILE>', 'a file that holds the client secret; - asks, or reads standard input')
    .option('--public', 'the client has no secret')
    .option('--name <NAME>', 'its name, for people')
    .option('--scope <SCOPES>', 'all scopes that are asked for; may be repeated', repeated)
    .option('--internal-url <URL>', 'where the server reaches it, if not where browsers do: http://keycloak:8080')
    .option('--trust-email', 'a verified e-mail address that is the name of a user proves to be that user')
    .option('--create-users', 'the first sign-in creates the user')
    .option('--allow-domain <DOMAIN>', 'only people with a verified e-mail address there; may be repeated', repeated)
    .option('--require-claim <NAME=VALUE>', 'only people of whom the provider says so; may be repeated', repeated)
    .option('--allow-group <GROUP>', 'only people whose claim groups holds it; may be repeated', repeated)
    .option('--username-claim <CLAIM>', 'what new users are called by')
    .option('--keep-tokens', 'keep the tokens of people, for resource servers that are allowed to act there')
    .option('--parameter <NAME=VALUE>', 'goes with each authorization request; may be repeated', repeated)
}

/** A command that has commands. */
function group(postern: Command, name: string, description: string): Command {
  return postern.command(name).description(description)
}

/** Makes an action of what has an answer: prints it, for a person or as JSON. */
function answer<P extends unknown[], A extends Answer>(
  work: (...parameters: P) => Promise<A>,
  thereafter?: (answer: A) => void,
) {
  return async function (this: Command, ...parameters: P): Promise<void> {
    const result = await work(...parameters)
    printAnswer(result, this.opts().json === true)
    thereafter?.(result)
  }
}

/** An option that may be repeated. */
function repeated(value: string, before: string[] = []): string[] {
  return [...before, value]
}

function grants(value: string, before: string[] = []): string[] {
  if (!GRANT_TYPES.includes(value)) throw new InvalidArgumentError(`Allowed choices are ${GRANT_TYPES.join(', ')}.`)
  return [...before, value]
}
