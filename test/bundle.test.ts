import t from 'tap'

t.test('packages that have hundreds of modules are loaded from one file', async (t) => {
  for (const name of ['kysely', 'kysely/migration', 'zod']) {
    t.match(import.meta.resolve(name), /\/dist\/node_modules\//, name)
  }
})
