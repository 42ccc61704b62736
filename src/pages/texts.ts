/**
 * Every text of the pages, in one place: another language is another object of the type `Texts`. In a sentence with
 * names in braces, views/sentence.eta puts each name in with its markup, wherever the language has it.
 */
export const TEXTS = {
  /** of the document: a code of BCP 47 */
  language: 'en',
  /** before the title of a page that is shown again because of a problem */
  problemTitle: (title: string) => `Problem: ${title}`,
  namelessApplication: 'An application without a name',
  formExpired: 'This page was no longer valid. Please try once more.',
  tooManyAttempts: 'There were too many attempts. Please try again later.',
  username: 'Username',
  password: 'Password',
  signedInAs: 'Signed in as',

  signIn: {
    title: 'Sign in',
    lead: 'to continue to {application}',
    withProvider: 'Continue with {provider}',
    or: 'or',
    button: 'Sign in',
    nobodyCan: 'Nobody can sign in at the moment. An administrator of this service can change that.',
    wrong: 'The username or the password is not right.',
    throttled: (minutes: number) =>
      `There were too many attempts. Please try again in ${minutes === 1 ? 'a minute' : `${minutes} minutes`}.`,
    deniedThere: (provider: string) => `You did not sign in with ${provider}.`,
    providerAway: (provider: string) => `${provider} does not answer right now. Please try again soon.`,
    providerBroken: (provider: string) =>
      `Signing in with ${provider} does not work right now. An administrator of this service can find out why.`,
    refused: {
      domain_not_allowed: 'This account may not sign in here: its e-mail address does not belong to the organisation.',
      claim_missing: 'This account may not sign in here. An administrator of this service can say why.',
      account_unknown: 'Nobody here is known by this account. An administrator of this service can add you.',
      user_disabled: 'This account has been disabled here.',
      another_account_linked: 'The user with this e-mail address signs in with another account here.',
    },
  },

  signedOut: {
    title: 'Signed out',
    heading: 'You are signed out',
    lead: 'This browser’s session has ended. Applications that you have connected stay connected.',
    again: 'Sign in again',
  },

  consent: {
    title: 'Allow access?',
    expired: 'This page was no longer valid, and nothing was decided. Please decide once more.',
    application: 'This application asks',
    from: 'from {host}',
    claimsWebsite: 'says that its website is {address}',
    resource: 'for access to',
    scopes: 'It will be able to',
    nothingNew: 'It asks for nothing beyond what you have already allowed.',
    withoutScope: 'act on your behalf at {resource}',
    upstream:
      '{resource} can then also use your account of {provider} on your behalf while this application is at work for you.',
    upstreamOffline:
      '{resource} can then also use your account of {provider} on your behalf, also while you are away, for as long as this application stays connected.',
    alreadyAllowed: 'Already allowed',
    deviceQuestion: 'Is the code {code} on a device in front of you?',
    deviceWarning:
      'Whoever shows this code gets the access, whatever it calls itself. Allow it only if you yourself started this on a device that you can see. Nobody has a reason to send you such a code.',
    localQuestion: 'Did you just start this yourself?',
    localWarning:
      'This application runs on this computer, so nobody can verify that it is what it calls itself. Allow it only if you yourself just started connecting it. Otherwise choose Deny.',
    anotherAccount: 'Use another account',
    afterwards: 'Afterwards',
    toDevice: 'the device with the code {code} goes on by itself',
    toWebsite: 'your browser goes to {host}',
    toLoopback: 'your browser goes to {application} (localhost)',
    loopbackApplication: 'an application on this computer',
    toApplication: 'your browser opens the application {application} on this device',
    decision: 'Your decision',
    deny: 'Deny',
    allow: 'Allow',
    changeOfMind: 'You can change your mind: your account page here ends the access at any time.',
  },

  device: {
    title: 'Connect a device',
    compare: 'Is this the code that your device shows?',
    enter: 'Enter the code that your device shows.',
    code: 'Code',
    codeNote: 'Eight letters. Small letters and the dash don’t matter.',
    button: 'Continue',
    expired: 'This page was no longer valid, and nothing was done. Please try once more.',
    wrong: 'This code is wrong, or no longer valid. Compare it with your device, or let that show a new one.',
  },

  deviceDone: {
    approved: 'Device connected',
    approvedLead: '{application} goes on by itself in a few seconds.',
    denied: 'Device refused',
    deniedLead: '{application} gets no access.',
    close: 'You can close this page.',
  },

  setup: {
    title: 'Create the first administrator',
    lead: 'Nobody can sign in here yet. Choose the name and the password that you will sign in with.',
    passwordNote: '8 characters or more. A password manager can make and keep one for you.',
    button: 'Create administrator',
    mistyped: 'If you mistype it, nothing is lost: the command {command} sets a new one.',
    mistypedCommand: 'postern user set-password',
  },

  nextSteps: {
    title: (server: string) => `${server} is ready`,
    lead: 'The administrator {username} exists, and you are signed in. These steps come next.',
    steps: [
      {
        title: 'Add a resource server',
        explanation:
          'The MCP server, or another API, that tokens are for. The answer has the credentials that it uses at introspection, and the metadata document that it should serve.',
        command: 'npx postern resource add https://mcp.example.com/mcp --name "Example" --scope read="Read your data"',
      },
      {
        title: 'Connect a client',
        explanation:
          'Give the address of the MCP server to Claude, ChatGPT, VS Code or another client: it finds this server and registers by itself. This checks that it will:',
        command: 'npx postern doctor https://mcp.example.com/mcp',
      },
      {
        title: 'Add people',
        explanation: 'Everybody who connects a client signs in here first.',
        command: 'npx postern user add NAME',
      },
    ],
    issuer: 'Issuer',
    issuerNote:
      'The issuer is this server’s address. Resource servers and applications are told it exactly as it stands here.',
    toAccount: 'Go to your account',
  },

  account: {
    title: 'Your account',
    signOut: 'Sign out',
    role: 'Role',
    administrator: 'Administrator',
    applications: 'Connected applications',
    noApplication: 'No application is connected. An application asks here for access when you connect it.',
    ownComputer: 'a computer of yours',
    accessTo: 'Access to',
    allowed: 'Allowed',
    upstream: 'Acts for you at',
    applicationOf: 'Application of',
    connected: 'Connected',
    connectedFrom: '{instant} from {address}',
    lastUsed: 'Last used',
    disconnect: 'Disconnect',
    disconnectNamed: (application: string, instant: string) => `Disconnect ${application}, connected ${instant}`,
    disconnectAll: 'Disconnect all applications',
    sessions: 'Where you are signed in',
    currentSession: 'this browser',
    sessionSince: 'Since {instant}',
    sessionFrom: 'from {address}',
    sessionWith: 'with {provider}',
    signOutThere: 'Sign out there',
    signOutNamed: (browser: string, instant: string) => `Sign out there: ${browser}, since ${instant}`,
    signOutElsewhere: 'Sign out everywhere else',
    namelessBrowser: 'A browser that does not say what it is',
    unknownBrowser: 'A browser',
    browserOn: (browser: string, system: string) => `${browser} on ${system}`,
    linked: 'Linked accounts',
    linkedSince: '{account}, since {instant}',
    noLinked: 'None yet. You can sign in with an account that you link.',
    unlink: 'Unlink',
    unlinkNamed: (provider: string) => `Unlink ${provider}`,
    link: 'Link an account of {provider}',
    signInToLink: 'An account that you link can sign in as you. Please sign in once more before you link one.',
    currentPassword: 'Current password',
    newPassword: 'New password',
    passwordNote: '8 characters or more. Changing it signs you out everywhere else.',
    changePassword: 'Change password',
    wrongPassword: 'The current password is not right. Nothing was changed.',
    refusedPassword: (problem: string) => `${problem} Nothing was changed.`,
    /** by the value of `done` in the address: what was just done */
    notices: {
      grant: { text: 'The application is no longer connected.' },
      grants: { text: 'No application is connected any more.' },
      session: { text: 'The session has ended.' },
      sessions: { text: 'You are signed out everywhere else.' },
      password: { text: 'Your password is changed, and you are signed out everywhere else.' },
      unlinked: { text: 'The account is no longer linked.' },
      linked: { text: 'The account is linked: you can sign in with it from now on.' },
      'only-way': {
        text: 'This account stays linked: it is your only way to sign in.',
        isProblem: true,
      },
      'not-linked': { text: 'The account was not linked.', isProblem: true },
      'linked-elsewhere': {
        text: 'The account was not linked: it, or another one, is linked already.',
        isProblem: true,
      },
    } satisfies Record<string, Notice>,
  },

  confirm: {
    cancel: 'Cancel',
    namelessGrant: 'this application',
    disconnect: (application: string) => ({
      title: `Disconnect ${application}?`,
      explanation:
        'It loses its access at once, and everything that it got on your behalf. To use it again, you have to connect it again.',
      button: 'Disconnect',
    }),
    disconnectAll: {
      title: 'Disconnect all applications?',
      explanation:
        'They lose their access at once, and everything that they got on your behalf. To use one again, you have to connect it again.',
      button: 'Disconnect all',
    },
    unlink: (provider: string) => ({
      title: `Unlink your account of ${provider}?`,
      explanation: `You can no longer sign in with it, sessions that began with it end, and nothing can act for you at ${provider} any more.`,
      button: 'Unlink',
    }),
  },

  error: {
    forOperators: 'If you run this service',
    code: 'Error',
    reference: 'Reference',
    note: 'Mention these when you ask for help.',
    otherwise: 'This request can’t be answered',
    /** by the reason of an error, or else by its code */
    words: {
      client_unknown: {
        title: 'This application is not registered here',
        explanation:
          'Its registration may have been removed because it was not used. Remove the connection in the application, and connect it again.',
      },
      client_disabled: {
        title: 'This application is not allowed here',
        explanation: 'An administrator of this service has disabled it.',
      },
      redirect_uri_mismatch: {
        title: 'This application asks to be answered at an unknown address',
        explanation: 'It is not one of the addresses that it registered, so nothing was sent there.',
      },
      client_id_url_malformed: {
        title: 'This application can’t be identified',
        explanation: 'It names an address of its description that is not a usable one.',
      },
      client_host_refused: {
        title: 'This application is not allowed here',
        explanation: 'The service does not accept applications from the website that this one belongs to.',
      },
      metadata_document_unusable: {
        title: 'This application can’t be identified',
        explanation:
          'Its description could not be read from the website that it belongs to, or is not a usable one. Its makers have to correct that.',
      },
      metadata_document_unavailable: {
        title: 'This application can’t be identified right now',
        explanation: 'The website that it belongs to does not answer as it should. Please try again soon.',
      },
      pushed_request_unknown: {
        title: 'This request has expired',
        explanation: 'It was open for too long. Go back to the application and start again.',
      },
      no_resource_added: {
        title: 'Nothing can be connected yet',
        explanation:
          'This service does not know any resource server, such as an MCP server, that it could give access to.',
        hint: 'npx postern resource add https://mcp.example.com/mcp --name "Example" --scope read="Read your data"',
      },
      upstream_state_unknown: {
        title: 'This sign-in can’t go on here',
        explanation:
          'It began in another browser, was finished before, or was open for long. Go back to the application and start again.',
      },
      provider_unavailable: {
        title: 'The other service does not answer',
        explanation: 'The provider of the account can’t be reached right now. Please try again soon.',
      },
      provider_unusable: {
        title: 'The other service can’t be used right now',
        explanation:
          'Something is wrong between the provider of the account and this service. An administrator of this service can find out what.',
      },
      request_too_long: {
        title: 'This request is too long',
        explanation:
          'The application asks with more text than can be kept while you are away to sign in. Its makers have to correct that.',
      },
      password_sign_in_off: {
        title: 'Passwords are not used here',
        explanation: 'Sign in with the account of your organisation instead.',
      },
      form_expired: {
        title: 'This page is no longer valid',
        explanation:
          'It was open for long, or you have signed in or out since. Go back to the application and start again.',
      },
      setup_link_not_valid: {
        title: 'This link is no longer good',
        explanation:
          'It works once, for a day, and only as long as nobody has an account. Starting the server again prints a new one if there is still no account.',
        hint: 'npx postern user add NAME --admin',
      },
      not_found: { title: 'There is no such page', explanation: 'The address may be mistyped.' },
      server_error: {
        title: 'Something went wrong here',
        explanation: 'It is not your fault. Please try again later.',
      },
      temporarily_unavailable: {
        title: 'Not available right now',
        explanation: 'The service can’t answer for a moment. Please try again soon.',
      },
    } as Record<string, ErrorWords>,
  },
}

export type Texts = typeof TEXTS

/** What the account page says about what was just done. */
export interface Notice {
  text: string
  isProblem?: boolean
}

/** What an error page says, and an advice for operators. */
export interface ErrorWords {
  title: string
  explanation: string
  hint?: string
}
