/**
 * A key and a self-signed certificate, from 2020 until 2120, for localhost, 127.0.0.1, ::1 and the websites that tests
 * pretend to be: for tests alone, and no secret, since everybody has it. Committed, because making one takes a program
 * that not every machine has.
 */
export const TEST_KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgLlG3mSBejmcQXAMd
21yWUKdWrCz48jwx1R6hY2kPbxChRANCAASjtL0JZca4tg7XIZNxuBwJoyqFG5E+
yd6UfJmJ3FKJjSc8YzkV64HuomTcRf52HC/KDmms605eDArgm5tfjPZW
-----END PRIVATE KEY-----
`

export const TEST_CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIICDjCCAbOgAwIBAgIUChUKSKwy6p9oOrRGElfVrDajdokwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwObmFtZXMgb2YgdGVzdHMwIBcNMjAwMTAxMDAwMDAwWhgPMjEy
MDAxMDEwMDAwMDBaMBkxFzAVBgNVBAMMDm5hbWVzIG9mIHRlc3RzMFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEo7S9CWXGuLYO1yGTcbgcCaMqhRuRPsnelHyZidxS
iY0nPGM5FeuB7qJk3EX+dhwvyg5prOtOXgwK4JubX4z2VqOB1jCB0zAPBgNVHRMB
Af8EBTADAQH/MIGgBgNVHREEgZgwgZWCCWxvY2FsaG9zdIcEfwAAAYcQAAAAAAAA
AAAAAAAAAAAAAYIJY2xhdWRlLmFpggtjaGF0Z3B0LmNvbYIKdnNjb2RlLmRldoIN
Z29vc2UtZG9jcy5haYILYXBwLmV4YW1wbGWCDSouYXBwLmV4YW1wbGWCDGtleXMu
ZXhhbXBsZYINb3RoZXIuZXhhbXBsZYcEXbjYIjAdBgNVHQ4EFgQUfeqlRPHurn4C
xYbou8JU5iUOucIwCgYIKoZIzj0EAwIDSQAwRgIhANkNQMBgyJebluC/ijly3+os
klz2lNAqVSfbjRVEzeROAiEAgZvWf3fhTlYXNNoMW7FaF1l0JWzCyv1CVZeSqC16
SHE=
-----END CERTIFICATE-----
`
