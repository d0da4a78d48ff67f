# Root in effect, and meant to be: puts a snapshot back and brings policies, mounts and keys up to a new release.
# Its secret id belongs in a safe, off every machine that runs; nothing of the broker ever logs in with it.
path "auth/token/lookup-self"          { capabilities = ["read"] }
path "sys/storage/raft/snapshot-force" { capabilities = ["create", "update"] }
path "sys/policies/acl/guestkey-*"     { capabilities = ["create", "update"] }
path "sys/mounts/*"                    { capabilities = ["create", "update"] }
path "transit/keys/+"                  { capabilities = ["create", "update", "read"] }
path "pki/config/crl"                  { capabilities = ["create", "update"] }
path "pki/config/auto-tidy"            { capabilities = ["create", "update"] }
path "pki/root/generate/internal"      { capabilities = ["create", "update"] }
path "pki/cert/ca"                     { capabilities = ["read"] }
path "ssh/config/ca"                   { capabilities = ["create", "update", "read"] }
path "ssh/roles/guestkey-*"            { capabilities = ["create", "update"] }
path "transit/keys/+/rotate"           { capabilities = ["update"] }
path "transit/keys/+/config"           { capabilities = ["update"] }
path "auth/approle/role/+/secret-id"   { capabilities = ["list"] }
path "auth/approle/role/+/custom-secret-id"           { capabilities = ["update"] }
path "auth/approle/role/+/secret-id-accessor/destroy" { capabilities = ["update"] }
path "sys/leases/revoke-prefix/auth/approle/login"    { capabilities = ["update", "sudo"] }
