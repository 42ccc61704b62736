import * as v2 from '@modelcontextprotocol/client'
import {
  type OAuthClientProvider,
  type OAuthDiscoveryState,
  UnauthorizedError,
} from '@modelcontextprotocol/sdk/client/auth.js'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import type {
  OAuthClientInformationMixed,
  OAuthClientMetadata,
  OAuthTokens,
} from '@modelcontextprotocol/sdk/shared/auth.js'

/** What a host application keeps for one MCP server, in memory. Serves both SDKs. */
export class MemoryProvider implements OAuthClientProvider {
  readonly clientMetadata: OAuthClientMetadata
  readonly redirectUrl: string
  /** where the application would open the browser */
  authorizationUrl: URL | undefined
  #client: OAuthClientInformationMixed | undefined
  #tokens: OAuthTokens | undefined
  #verifier = ''
  #discovery: OAuthDiscoveryState | undefined

  constructor(redirectUri: string, metadata: Partial<OAuthClientMetadata> = {}) {
    this.redirectUrl = redirectUri
    this.clientMetadata = {
      client_name: 'Notebook',
      redirect_uris: [redirectUri],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
      ...metadata,
    }
  }

  state(): string {
    return 'a state with ümlauts, + and /='
  }

  clientInformation(): OAuthClientInformationMixed | undefined {
    return this.#client
  }

  saveClientInformation(client: OAuthClientInformationMixed): void {
    this.#client = client
  }

  tokens(): OAuthTokens | undefined {
    return this.#tokens
  }

  saveTokens(tokens: OAuthTokens): void {
    this.#tokens = tokens
  }

  redirectToAuthorization(url: URL): void {
    this.authorizationUrl = url
  }

  saveCodeVerifier(verifier: string): void {
    this.#verifier = verifier
  }

  codeVerifier(): string {
    return this.#verifier
  }

  saveDiscoveryState(state: OAuthDiscoveryState): void {
    this.#discovery = state
  }

  discoveryState(): OAuthDiscoveryState | undefined {
    return this.#discovery
  }

  invalidateCredentials(scope: 'all' | 'client' | 'tokens' | 'verifier' | 'discovery'): void {
    if (scope === 'all' || scope === 'client') this.#client = undefined
    if (scope === 'all' || scope === 'tokens') this.#tokens = undefined
    if (scope === 'all' || scope === 'discovery') this.#discovery = undefined
  }
}

/** A connection to an MCP server. */
export interface Connection {
  /** The texts that a tool answers with. */
  call(tool: string, parameters?: Record<string, unknown>): Promise<string[]>
  /** After a call that found out that the person has to be asked: takes the browser's answer. */
  finish(answer: URL): Promise<void>
  close(): Promise<void>
}

/** An official SDK, unmodified. */
export interface Sdk {
  name: string
  /**
   * Connects as a host application does.
   *
   * @param ask sends the person to an address, and gives the one at which the browser came back
   */
  connect(url: string, provider: MemoryProvider, ask: (url: URL) => Promise<URL>): Promise<Connection>
  /** What it throws when the person has to be asked (again). */
  isUnauthorized(error: unknown): boolean
}

const APPLICATION = { name: 'notebook', version: '1.0.0' }

export const SDK: Sdk = {
  name: '@modelcontextprotocol/sdk',
  isUnauthorized: (error) => error instanceof UnauthorizedError,
  connect: async (url, provider, ask) => {
    const first = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider })
    try {
      await new Client(APPLICATION).connect(first)
      throw new Error('connected without a token')
    } catch (error) {
      if (!(error instanceof UnauthorizedError)) throw error
    }
    await first.finishAuth(codeOf(await ask(demandUrl(provider))))
    await first.close()
    const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider })
    const client = new Client(APPLICATION)
    await client.connect(transport)
    return {
      call: async (name, parameters = {}) => textsOf(await client.callTool({ name, arguments: parameters })),
      finish: (answer) => transport.finishAuth(codeOf(answer)),
      close: () => client.close(),
    }
  },
}

export const CLIENT_PACKAGE: Sdk = {
  name: '@modelcontextprotocol/client',
  isUnauthorized: (error) => error instanceof v2.UnauthorizedError,
  connect: async (url, provider, ask) => {
    const first = new v2.StreamableHTTPClientTransport(new URL(url), { authProvider: provider })
    try {
      await new v2.Client(APPLICATION).connect(first)
      throw new Error('connected without a token')
    } catch (error) {
      if (!(error instanceof v2.UnauthorizedError)) throw error
    }
    await first.finishAuth((await ask(demandUrl(provider))).searchParams) // judges `iss` (RFC 9207), and error answers
    await first.close()
    const transport = new v2.StreamableHTTPClientTransport(new URL(url), { authProvider: provider })
    const client = new v2.Client(APPLICATION)
    await client.connect(transport)
    return {
      call: async (name, parameters = {}) => textsOf(await client.callTool({ name, arguments: parameters })),
      finish: (answer) => transport.finishAuth(answer.searchParams),
      close: () => client.close(),
    }
  },
}

function demandUrl(provider: MemoryProvider): URL {
  const url = provider.authorizationUrl
  provider.authorizationUrl = undefined
  if (url === undefined) throw new Error('the SDK opened no browser')
  return url
}

function codeOf(answer: URL): string {
  const code = answer.searchParams.get('code')
  if (code === null) throw new Error(`the answer has no code: ${answer.search}`)
  return code
}

function textsOf(result: object): string[] {
  const { content, isError } = result as { content: { text: string }[]; isError?: boolean }
  if (isError) throw new Error(content.map(({ text }) => text).join('\n'))
  return content.map(({ text }) => text)
}
