/** A reason for not starting that an operator can act on: shown without a stack. */
export class StartError extends Error {
  override readonly name = 'StartError'
}
