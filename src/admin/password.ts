import { emitKeypressEvents, type Key } from 'node:readline'
import { passwordProblem, SHORTEST_PASSWORD } from '../protocol/username.ts'
import { AdminError } from './output.ts'

const LONGEST_INPUT = 65_536 // bytes
const INTERRUPTED = 130 // what shells expect of a program that Ctrl-C ended

/**
 * Reads a new password: asked twice at a terminal, without showing it, and else the first line of standard input.
 *
 * @throws {AdminError} when it can't be a password
 */
export async function readNewPassword(): Promise<string> {
  const password = process.stdin.isTTY ? await askTwice() : await readFirstLine('Password')
  const problem = passwordProblem(password)
  if (problem !== undefined) throw new AdminError(problem)
  return password
}

/** Reads a secret that somebody else made: asked at a terminal, and else the first line of standard input. */
export async function readSecret(what: string): Promise<string> {
  const [secret = ''] = process.stdin.isTTY ? await askHidden([`${what}: `]) : [await readFirstLine(what)]
  if (secret.trim() === '') throw new AdminError(`No ${what.toLowerCase()} was given.`)
  return secret.trim()
}

async function askTwice(): Promise<string> {
  const [password = '', repeated] = await askHidden([
    `Password (at least ${SHORTEST_PASSWORD} characters): `,
    'The same again: ',
  ])
  if (password !== repeated) throw new AdminError('The passwords differ: nothing was changed.')
  return password
}

/** Asks on standard error, so that standard output holds the answer alone; nothing that is typed is shown. */
function askHidden(questions: string[]): Promise<string[]> {
  const { stdin, stderr } = process
  const answers: string[] = []
  let typed: string[] = []
  return new Promise((resolve, reject) => {
    const finish = () => {
      stdin.off('keypress', onKey).off('end', cancel).setRawMode(false).pause()
      stderr.write('\n')
    }
    const cancel = () => {
      finish()
      reject(new AdminError('Cancelled: nothing was changed.', INTERRUPTED))
    }
    const onKey = (text: string | undefined, key: Key) => {
      if (answers.length === questions.length) return // typed ahead
      if (key.ctrl && (key.name === 'c' || (key.name === 'd' && typed.length === 0))) return cancel()
      if (key.name === 'return' || key.name === 'enter') {
        answers.push(typed.join(''))
        typed = []
        if (answers.length === questions.length) {
          finish()
          resolve(answers)
        } else stderr.write(`\n${questions[answers.length]}`)
      } else if (key.name === 'backspace') typed.pop()
      else if (key.ctrl && key.name === 'u') typed = []
      else if (text !== undefined && !key.ctrl && !key.meta && !/\p{Control}/u.test(text)) typed.push(text)
    }
    emitKeypressEvents(stdin)
    stdin.setRawMode(true).on('keypress', onKey).once('end', cancel).resume()
    stderr.write(questions[0] ?? '') // only now: until then the terminal shows what is typed
  })
}

async function readFirstLine(what: string): Promise<string> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of process.stdin) {
    chunks.push(chunk)
    length += chunk.length
    if (chunk.includes(0x0a) || length > LONGEST_INPUT) break
  }
  const [line = ''] = decode(what, Buffer.concat(chunks)).split(/\r?\n/, 1)
  if (line === '') {
    throw new AdminError(`No ${what.toLowerCase()} was given: type it at a terminal, or pass it on standard input.`)
  }
  return line
}

function decode(what: string, bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new AdminError(`The ${what.toLowerCase()} on standard input is not UTF-8 text.`)
  }
}
