# The operator, by hand: connects databases and rotates keys (never their configuration).
# No running part of the broker holds this identity.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "database/config"        { capabilities = ["list"] }
path "database/creds/gk-probe-*" { capabilities = ["read"] }
path "database/config/+"      { capabilities = ["create", "update", "read"] }
path "database/rotate-root/+" { capabilities = ["update"] }
path "guestkey/data/connections/+/+" { capabilities = ["create", "update"] }
path "transit/keys/tokens/rotate"  { capabilities = ["update"] }
path "transit/keys/totp/rotate"    { capabilities = ["update"] }
path "transit/keys/sources/rotate" { capabilities = ["update"] }
path "sys/storage/raft/snapshot"   { capabilities = ["read"] }
path "transit/keys/checkpoints/rotate" { capabilities = ["update"] }
path "transit/keys/channels/rotate" { capabilities = ["update"] }
path "ssh/config/ca"               { capabilities = ["read"] }
path "transit/keys/ssh-lists"      { capabilities = ["read"] }
path "transit/keys/ssh-lists/rotate" { capabilities = ["update"] }
