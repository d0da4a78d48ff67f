# An account of the example identity provider: may sign in there, and nothing else.
path "identity/oidc/provider/guestkey/authorize" { capabilities = ["read", "update"] }
