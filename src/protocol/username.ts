/** The shortest password that a person may choose (NIST SP 800-63B §3.1.1.2). */
export const SHORTEST_PASSWORD = 8
export const LONGEST_PASSWORD = 1024

/** What `usernameKey` demands, for people. */
export const USERNAME_RULE = 'A username has 1 to 128 characters, without spaces and invisible characters.'

/**
 * Brings a username into the form under which it is unique: compatibility forms and case don't tell people apart.
 *
 * @returns `undefined` when it can't be a username: empty, longer than 128 characters, or with white space
 *   or invisible characters
 */
export function usernameKey(username: string): string | undefined {
  const key = username.trim().normalize('NFKC').toLowerCase()
  if (key === '' || key.length > 128) return undefined
  return /[\p{White_Space}\p{Control}\p{Format}\p{Surrogate}\p{Private_Use}\p{Unassigned}]/u.test(key) ? undefined : key
}

/** Says why a text can't be a password, or `undefined` when it can. */
export function passwordProblem(password: string): string | undefined {
  const length = [...password].length
  if (length < SHORTEST_PASSWORD) return `A password has at least ${SHORTEST_PASSWORD} characters.`
  if (length > LONGEST_PASSWORD) return `A password has at most ${LONGEST_PASSWORD} characters.`
  return undefined
}
