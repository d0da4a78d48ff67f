# Registering slices. Root in effect over what leases may read: only the worker logs in with it, while it registers.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self"  { capabilities = ["update"] }
path "database/roles/gk-*"    { capabilities = ["create", "update", "delete"] }
path "pki/roles/gk-*"         { capabilities = ["create", "update", "delete"] }
path "pki/config/urls"        { capabilities = ["create", "update"] }
path "sys/policies/acl/guestkey-lease-gk-*" { capabilities = ["create", "update", "delete"] }
path "guestkey/data/connections/+/registrar" { capabilities = ["read"] }
path "ssh/roles/gk-*"           { capabilities = ["create", "update", "delete"] }
path "ssh/sign/guestkey-setup"  { capabilities = ["update"] }
path "guestkey/data/connections/+/s3-issuer" { capabilities = ["read"] }
