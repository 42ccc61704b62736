import t from 'tap'
import { judgeUpstream, type UpstreamOption } from '../../src/protocol/token-exchange.ts'

const company: UpstreamOption = {
  providerId: 'company',
  issuer: 'https://company.example/realms/staff',
  usable: true,
  offline: false,
  agreed: true,
  tokens: 'kept',
}
const google: UpstreamOption = { ...company, providerId: 'google', issuer: 'https://accounts.google.com' }
const nobody = { audience: undefined, resource: undefined }

t.test('a provider is named by its id or its issuer, and needn’t be named when there is one alone', async (t) => {
  t.equal(judgeUpstream([company], nobody), company)
  t.equal(judgeUpstream([company, google], nobody), 'ambiguous')
  t.equal(judgeUpstream([company, google], { ...nobody, audience: 'google' }), google)
  t.equal(judgeUpstream([company, google], { ...nobody, resource: 'https://company.example/realms/staff/' }), company)
  t.equal(judgeUpstream([company, google], { ...nobody, resource: 'https://accounts.google.com/' }), google)
  t.equal(judgeUpstream([company, google], { audience: 'google', resource: company.issuer }), 'not-allowed')
  t.equal(judgeUpstream([company, google], { ...nobody, audience: 'Google' }), 'not-allowed')
  t.equal(judgeUpstream([company, google], { ...nobody, resource: 'not a URL' }), 'not-allowed')
  t.equal(judgeUpstream([], nobody), 'not-allowed')
})

t.test('a permission counts when the provider is in use, the person agreed, and there are tokens', async (t) => {
  t.equal(judgeUpstream([{ ...company, usable: false }], nobody), 'not-usable')
  t.equal(judgeUpstream([{ ...company, agreed: false }], nobody), 'not-agreed')
  t.equal(judgeUpstream([{ ...company, tokens: 'none' }], nobody), 'no-account')
  t.equal(judgeUpstream([{ ...company, tokens: 'ended' }], nobody), 'sign-in-needed')
  t.equal(judgeUpstream([{ ...company, agreed: false, tokens: 'ended' }], nobody), 'not-agreed')
})
