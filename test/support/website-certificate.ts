/**
 * A key and a self-signed certificate for the names of websites that tests pretend to be, until 2126: no secret,
 * since everybody has it, and trusted by nobody but tests. Committed like that of localhost.
 */
export const WEBSITE_KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgl6E/3F2PqdPfg7Kz
UaNVWbGSJNtmVrJBDdqs6viDm9ShRANCAATZEi9fKjyj30x+3dPTh5dgVcPUnMNi
SozCJ38sxnJvVEAiRsqdLcrN5XJG/Eh//YQfFWhBiyL/MQbFqZwhOGj3
-----END PRIVATE KEY-----
`

export const WEBSITE_CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIICBDCCAaugAwIBAgIUCipBuuZ+pb0QlC+f0HIN726BqWkwCgYIKoZIzj0EAwIw
HzEdMBsGA1UEAwwUd2Vic2l0ZXMgKGZvciB0ZXN0cykwIBcNMjYxMTIwMTk1MjEz
WhgPMjEyNjEwMjcxOTUyMTNaMB8xHTAbBgNVBAMMFHdlYnNpdGVzIChmb3IgdGVz
dHMpMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE2RIvXyo8o99Mft3T04eXYFXD
1JzDYkqMwid/LMZyb1RAIkbKnS3KzeVyRvxIf/2EHxVoQYsi/zEGxamcITho96OB
wjCBvzAdBgNVHQ4EFgQUv6LC4Ow+MHwuxCS0KrrFOGldmH8wHwYDVR0jBBgwFoAU
v6LC4Ow+MHwuxCS0KrrFOGldmH8wDwYDVR0TAQH/BAUwAwEB/zBsBgNVHREEZTBj
ggljbGF1ZGUuYWmCC2NoYXRncHQuY29tggp2c2NvZGUuZGV2ggthcHAuZXhhbXBs
ZYINKi5hcHAuZXhhbXBsZYIMa2V5cy5leGFtcGxlgg1vdGhlci5leGFtcGxlhwRd
uNgiMAoGCCqGSM49BAMCA0cAMEQCIFrug1fH9gzl536paq+b+7pvYwL6zZeX2OQG
/9Mlbik6AiA3y32Br/EiMNv76XVBRygPL2W/z7cG+0+nG3wmM/EGzQ==
-----END CERTIFICATE-----
`
