#!/usr/bin/env node
import { Command, CommanderError } from 'commander'
import { AdminError, printProblem } from './admin/output.ts'
import { ConfigError, readConfig, settingsHelp } from './config.ts'
import { VERSION } from './package.ts'
import { StartError } from './start-error.ts'
import { EmbeddedPostgresError } from './store/embedded-postgres.ts'

const BAD_USAGE = 2

const postern = new Command('postern')
  .description('Postern, an OAuth 2.1 authorization server for MCP servers and other APIs.')
  .version(VERSION, '-V, --version', 'show the version')
  .helpOption('-h, --help', 'show help')
  .helpCommand('help [COMMAND]', 'show help for a command')
  .exitOverride()
  .addHelpText(
    'after',
    '\nCommands read the same settings as the server (postern serve --help), which may be running or not.',
  )

postern
  .command('serve')
  .description('Start the server; its log is on standard output, in JSON.')
  .addHelpText('after', `\nExample:\n  postern serve\n\nSettings, from the environment:\n${settingsHelp()}`)
  .action(async () => {
    const config = readConfig()
    const { startPostern, stopOnSignal } = await import('./main.ts')
    await stopOnSignal(startPostern(config))
  })

// The server does without the other commands, and they without the server: each is loaded when it is wanted.
if (process.argv[2] !== 'serve') {
  const { addAdminCommands } = await import('./admin/commands.ts')
  addAdminCommands(postern)
}

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error // else whoever reads, such as head, has had enough
})
try {
  await postern.parseAsync()
} catch (error) {
  process.exitCode = report(error)
}

/** Says why a command failed, in words for whoever typed it. @returns the exit code */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : BAD_USAGE // commander has said it
  if (error instanceof AdminError) {
    printProblem(error.message)
    return error.exitCode
  }
  const { message, stack } = error instanceof Error ? error : new Error(String(error))
  const isKnown = error instanceof ConfigError || error instanceof EmbeddedPostgresError || error instanceof StartError
  const place = /^ *at .*/m.exec(stack ?? '')?.[0].trim() ?? ''
  printProblem(isKnown ? message : `Postern failed ${place}: ${message.replaceAll('\n', ' ')}`)
  return 1
}
