import t from 'tap'
import { readConfig } from '../src/config.ts'

t.test('metadata documents are accepted from everywhere but loopback by default', async (t) => {
  t.match(readConfig({}), {
    metadataDocument: true,
    metadataDocumentAllow: undefined,
    metadataDocumentDeny: [],
    metadataDocumentLoopback: false,
  })
})

t.test('hosts are names in lower case, or all below one', async (t) => {
  const read = (text: string) => readConfig({ POSTERN_METADATA_DOCUMENT_ALLOW: text }).metadataDocumentAllow
  t.same(read('claude.ai, *.example.com,localhost,127.0.0.1,xn--e1afmkfd.example'), [
    'claude.ai',
    '*.example.com',
    'localhost',
    '127.0.0.1',
    'xn--e1afmkfd.example',
  ])
  for (const wrong of [
    'https://claude.ai',
    'Claude.ai',
    '*',
    '*.',
    '*claude.ai',
    'a.*.example',
    'claude.ai/',
    'a:443',
    '.a',
    'a.',
  ])
    t.throws(() => read(wrong), /POSTERN_METADATA_DOCUMENT_ALLOW must be host names/, wrong)
  t.same(readConfig({ POSTERN_METADATA_DOCUMENT_DENY: 'evil.example' }).metadataDocumentDeny, ['evil.example'])
})
