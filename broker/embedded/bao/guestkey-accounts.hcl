# The accounts of the example identity provider, which is embedded only: the operator of one machine has this besides.
# Parameters are listed because an account, an entity or an alias may carry policies: with any of them it would be root.
# A deployment neither loads this file's rights into a role nor has the mounts.
path "sys/auth" { capabilities = ["read"] }
path "auth/userpass/users/+" {
  capabilities       = ["create", "update", "delete"]
  allowed_parameters = {
    "password"       = []
    "token_policies" = ["guestkey-sign-in"]
  }
}
path "identity/entity" {
  capabilities       = ["create", "update"]
  allowed_parameters = {
    "name"     = []
    "metadata" = []
  }
}
path "identity/entity-alias" {
  capabilities       = ["create", "update"]
  allowed_parameters = {
    "name"           = []
    "canonical_id"   = []
    "mount_accessor" = []
  }
}
path "identity/oidc/key/guestkey"      { capabilities = ["create", "update"] }
path "identity/oidc/scope/email"       { capabilities = ["create", "update"] }
path "identity/oidc/scope/profile"     { capabilities = ["create", "update"] }
path "identity/oidc/client/guestkey"   { capabilities = ["create", "update", "read"] }
path "identity/oidc/provider/guestkey" { capabilities = ["create", "update"] }
