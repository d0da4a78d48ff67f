# Web replicas: may mint through the lease role and use transit. May revoke nothing and write no policy or role.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self"  { capabilities = ["update"] }
path "sys/config/state/sanitized" { capabilities = ["read"] }
path "sys/leader"                 { capabilities = ["read"] }
path "auth/token/create/guestkey-lease" {
  capabilities        = ["create", "update"]
  required_parameters = ["meta", "ttl", "display_name", "policies"]
  allowed_parameters  = {
    "meta"         = []
    "ttl"          = []
    "display_name" = []
    "policies"     = []
  }
}
path "sys/leases/renew"         { capabilities = ["update"] }
path "transit/encrypt/totp"     { capabilities = ["update"] }
path "transit/decrypt/totp"     { capabilities = ["update"] }
path "transit/encrypt/sources"  { capabilities = ["update"] }
path "transit/decrypt/sources"  { capabilities = ["update"] }
path "transit/sign/tokens"      { capabilities = ["update"] }
path "transit/keys/tokens"      { capabilities = ["read"] }
path "guestkey/data/witness"    { capabilities = ["read"] }
path "transit/encrypt/channels" { capabilities = ["update"] }
path "ssh/config/ca"            { capabilities = ["read"] }
path "transit/sign/ssh-lists"   { capabilities = ["update"] }
path "transit/keys/ssh-lists"   { capabilities = ["read"] }
path "guestkey/data/connections/+/s3-issuer" { capabilities = ["read"] }
