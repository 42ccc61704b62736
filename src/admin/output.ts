/** What a command has to say. */
export interface Answer {
  /** for a program (`--json`) */
  json: unknown
  /** for a person, line by line */
  text: string[]
}

/** A reason for not doing what was asked, in one line for the person who asked. */
export class AdminError extends Error {
  override readonly name = 'AdminError'
  readonly exitCode: number

  constructor(message: string, exitCode: number = 1) {
    super(message)
    this.exitCode = exitCode
  }
}

/** Characters that steer a terminal, or reorder and hide what it shows: strangers choose names of clients. */
const UNPRINTABLE = /[\p{Control}\p{Bidi_Control}\p{Surrogate}\u200b\u2028\u2029\u2060\ufeff]/gu

/** The text without anything that a terminal would obey. */
export function printable(text: string): string {
  return text.replaceAll(UNPRINTABLE, '')
}

/** Writes an answer to standard output. */
export function printAnswer(answer: Answer, asJson: boolean): void {
  const lines = asJson ? [printableJson(answer.json)] : answer.text.map(printable)
  process.stdout.write(lines.map((line) => `${line}\n`).join(''))
}

/** Writes a line to standard error. */
export function printProblem(message: string): void {
  process.stderr.write(`${message.split('\n').map(printable).join('\n')}\n`)
}

/** Rows below their headings, in columns that line up; `none` when there is no row. */
export function table(headings: string[], rows: string[][], none: string): string[] {
  if (rows.length === 0) return [none]
  const lines = [headings, ...rows].map((cells) => cells.map(printable))
  const widths = headings.map((_, column) => Math.max(...lines.map((cells) => [...(cells[column] ?? '')].length)))
  return lines.map((cells) =>
    cells
      .map((cell, column) => pad(cell, widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
}

/** Names with their values, in two columns; several values stand below each other. */
export function facts(values: Record<string, string | string[]>): string[] {
  const width = Math.max(...Object.keys(values).map((name) => name.length))
  return Object.entries(values).flatMap(([name, value]) =>
    [value].flat().map((line, index) => `  ${pad(index === 0 ? name : '', width)}  ${line}`),
  )
}

/** A name that fits into a table. */
export function shorten(text: string, length: number = 40): string {
  const characters = [...printable(text)]
  return characters.length <= length ? characters.join('') : `${characters.slice(0, length - 1).join('')}…`
}

/** An instant in UTC, to the minute. */
export function instant(at: Date): string {
  return at.toISOString().slice(0, 16).replace('T', ' ')
}

/** Such as `1 grant`, `2 grants`. */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}

/** The same JSON, with escapes for everything that a terminal would obey. */
function printableJson(value: unknown): string {
  return JSON.stringify(value).replaceAll(
    UNPRINTABLE,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

function pad(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - [...text].length))
}
