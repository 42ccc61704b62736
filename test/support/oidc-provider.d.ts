/** What the tests use of node-oidc-provider, which comes without types. */
declare module 'oidc-provider' {
  import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'

  interface Grant {
    addOIDCScope(scope: string): void
    save(): Promise<string>
    destroy(): Promise<void>
  }

  interface Interaction {
    params: Record<string, string | undefined>
    session?: { accountId: string }
  }

  interface KoaContext {
    path: string
    body: unknown
    oidc?: { params?: Record<string, string | undefined> }
  }

  export class Provider {
    constructor(issuer: string, configuration: Record<string, unknown>)
    readonly Grant: {
      new (owner: { accountId: string; clientId: string | undefined }): Grant
      find(id: string): Promise<Grant | undefined>
    }
    callback(): RequestListener
    use(middleware: (ctx: KoaContext, next: () => Promise<void>) => Promise<void>): void
    interactionDetails(request: IncomingMessage, response: ServerResponse): Promise<Interaction>
    interactionFinished(
      request: IncomingMessage,
      response: ServerResponse,
      result: Record<string, unknown>,
      options: { mergeWithLastSubmission: boolean },
    ): Promise<void>
  }
}
