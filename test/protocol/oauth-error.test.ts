import t from 'tap'
import { ERROR_STATUS, OAuthError, type OAuthErrorCode } from '../../src/protocol/oauth-error.ts'

t.test('an error says its code and its words to the client, and keeps the reason (RFC 6749 §5.2)', async (t) => {
  const error = new OAuthError('invalid_grant', 'refresh token is not valid', 'refresh_token_replayed')
  t.same(error.toJSON(), { error: 'invalid_grant', error_description: 'refresh token is not valid' })
  t.notMatch(JSON.stringify(error), 'replayed')
  t.equal(error.status, 400)
})

t.test('401 is for who is not proven alone; a fault of ours is never the client’s (RFC 6749 §5.2)', async (t) => {
  const codes = Object.keys(ERROR_STATUS) as OAuthErrorCode[]
  t.same(
    codes.filter((code) => ERROR_STATUS[code] === 401),
    ['invalid_client', 'invalid_token'],
  )
  t.same(
    codes.filter((code) => ERROR_STATUS[code] >= 500),
    ['server_error', 'temporarily_unavailable'],
  )
})

t.test('the transport’s status can be more exact than the code’s', async (t) => {
  t.equal(new OAuthError('invalid_request', 'too large', 'too_large', { status: 413 }).status, 413)
})
