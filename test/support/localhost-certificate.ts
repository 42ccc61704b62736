/**
 * A key and a self-signed certificate for localhost, 127.0.0.1 and ::1, until 2120: for tests alone, and no
 * secret, since everybody has it. Committed, because making one takes a program that not every machine has.
 */
export const LOCALHOST_KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg80lx5p+6UY0rM95C
pUctNPdItVJtIyBZLbSbKElhI6yhRANCAASIRBWrOLLi6BkNdMI9AbMlkNV/248L
sVAf+GlhyqOpVm6bJRhpiJOEXXbNOwYGEcKt0dbtucLTe3+1/wzbOXKv
-----END PRIVATE KEY-----
`

export const LOCALHOST_CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBiDCCAS6gAwIBAgIUJU9Pf4k/5E3OUsmAmfg+b8iIh94wCgYIKoZIzj0EAwIw
IDEeMBwGA1UEAwwVbG9jYWxob3N0IChmb3IgdGVzdHMpMCAXDTIwMDEwMTAwMDAw
MFoYDzIxMjAwMTAxMDAwMDAwWjAgMR4wHAYDVQQDDBVsb2NhbGhvc3QgKGZvciB0
ZXN0cykwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASIRBWrOLLi6BkNdMI9AbMl
kNV/248LsVAf+GlhyqOpVm6bJRhpiJOEXXbNOwYGEcKt0dbtucLTe3+1/wzbOXKv
o0QwQjASBgNVHRMBAf8ECDAGAQH/AgEAMCwGA1UdEQQlMCOCCWxvY2FsaG9zdIcE
fwAAAYcQAAAAAAAAAAAAAAAAAAAAATAKBggqhkjOPQQDAgNIADBFAiEApVY64qQd
/vBootANgkOO3Wg3YSYL2NOIbC9qbscLusgCIHIANGfY/RUkeAwwnGXqPPcvaIg1
Nep8ONtOR+LQczCp
-----END CERTIFICATE-----
`
