# The worker: revokes, lists and asks. May make nothing.
path "auth/token/lookup-self"     { capabilities = ["read"] }
path "auth/token/renew-self"      { capabilities = ["update"] }
path "sys/leases/lookup"          { capabilities = ["update"] }
path "sys/leases/revoke"          { capabilities = ["update"] }
path "sys/leases/lookup/database/creds/"     { capabilities = ["list", "sudo"] }
path "sys/leases/lookup/database/creds/gk-*" { capabilities = ["list", "sudo"] }
path "guestkey/data/connections/+/watch"     { capabilities = ["read"] }
path "guestkey/data/witness"                 { capabilities = ["create", "update", "read"] }
path "transit/sign/checkpoints"   { capabilities = ["update"] }
path "transit/keys/checkpoints"   { capabilities = ["read"] }
path "pki/certs"       { capabilities = ["list"] }
path "pki/certs/"      { capabilities = ["list"] }
path "pki/cert/+"      { capabilities = ["read"] }
path "pki/revoke"      { capabilities = ["update"] }
path "pki/crl/rotate"  { capabilities = ["read"] }
path "transit/decrypt/channels" { capabilities = ["update"] }
path "ssh/sign/guestkey-ender"  { capabilities = ["update"] }
