# What the broker needs of OpenBao, made on the first start and never again. Policies and secret ids come from files.
# docker-compose.yml mounts this file; the embedded server of `make up` reads it with the paths of its state folder.
initialize "guestkey" {
  request "approle" {
    operation = "update"
    path      = "sys/auth/approle"
    data = {
      type = "approle"
    }
  }
  request "database" {
    operation = "update"
    path      = "sys/mounts/database"
    data = {
      type = "database"
    }
  }
  request "transit" {
    operation = "update"
    path      = "sys/mounts/transit"
    data = {
      type = "transit"
    }
  }
  request "kv" {
    operation = "update"
    path      = "sys/mounts/guestkey"
    data = {
      type = "kv"
      options = { version = "2" }
    }
  }
  request "totp" {
    operation = "update"
    path      = "transit/keys/totp"
    data = {
      derived = true
    }
  }
  request "sources" {
    operation = "update"
    path      = "transit/keys/sources"
    data = {
      derived = true
    }
  }
  request "channels" {
    operation = "update"
    path      = "transit/keys/channels"
    data = {
      derived = true
    }
  }
  request "tokens" {
    operation = "update"
    path      = "transit/keys/tokens"
    data = {
      type = "ecdsa-p256"
      exportable = false
    }
  }
  request "checkpoints" {
    operation = "update"
    path      = "transit/keys/checkpoints"
    data = {
      type = "ed25519"
      exportable = false
    }
  }
  # The authority of guests' certificates. Revoking does not rebuild the list each time: the worker has it made anew once
  # for all it revoked (docs/decisions/0091-one-list-for-many-endings.md).
  request "pki" {
    operation = "update"
    path      = "sys/mounts/pki"
    data = {
      type = "pki"
      config = { max_lease_ttl = "87600h" }
    }
  }
  # Before the authority: the first list, made with it, is to be good for an hour, too.
  request "pki-crl" {
    operation = "update"
    path      = "pki/config/crl"
    data = {
      expiry = "1h"
      auto_rebuild = true
      auto_rebuild_grace_period = "30m"
      ocsp_expiry = "1m"
    }
  }
  request "pki-root" {
    operation = "update"
    path      = "pki/root/generate/internal"
    data = {
      common_name = "Guestkey guests"
      key_type = "ec"
      key_bits = 256
      ttl = "87600h"
      max_path_length = 0
    }
  }
  request "pki-tidy" {
    operation = "update"
    path      = "pki/config/auto-tidy"
    data = {
      enabled = true
      interval_duration = "5m"
      safety_buffer = "10m"
      tidy_cert_store = true
      tidy_revoked_certs = true
    }
  }
  request "lease-role" {
    operation = "update"
    path      = "auth/token/roles/guestkey-lease"
    data = {
      allowed_policies_glob = ["guestkey-lease-*"]
      disallowed_policies = ["root"]
      orphan = true
      renewable = false
      # Batch tokens are written nowhere: docs/decisions/0003-batch-tokens.md.
      token_type = "batch"
      token_no_default_policy = true
    }
  }
  request "longest-token" {
    operation = "update"
    path      = "sys/auth/token/tune"
    data = {
      max_lease_ttl = "25h"
    }
  }
  request "ssh" {
    operation = "update"
    path      = "sys/mounts/ssh"
    data = {
      type = "ssh"
      config = { max_lease_ttl = "25h" }
    }
  }
  request "ssh-authority" {
    operation = "update"
    path      = "ssh/config/ca"
    data = {
      generate_signing_key = true
      key_type = "ed25519"
    }
  }
  # What OpenBao certifies for two of the broker's identities at SFTP hosts: their own name, for an hour.
  request "ssh-guestkey-ender" {
    operation = "update"
    path      = "ssh/roles/guestkey-ender"
    data = {
      key_type = "ca"
      allow_user_certificates = true
      allowed_users = "guestkey-ender"
      default_user = "guestkey-ender"
      allow_empty_principals = false
      allowed_critical_options = "none"
      allowed_extensions = "none"
      key_id_format = "guestkey-ender"
      ttl = "1h"
      max_ttl = "1h"
      not_before_duration = "30s"
    }
  }
  request "ssh-guestkey-setup" {
    operation = "update"
    path      = "ssh/roles/guestkey-setup"
    data = {
      key_type = "ca"
      allow_user_certificates = true
      allowed_users = "guestkey-setup"
      default_user = "guestkey-setup"
      allow_empty_principals = false
      allowed_critical_options = "none"
      allowed_extensions = "none"
      key_id_format = "guestkey-setup"
      ttl = "1h"
      max_ttl = "1h"
      not_before_duration = "30s"
    }
  }
  request "ssh-lists" {
    operation = "update"
    path      = "transit/keys/ssh-lists"
    data = {
      type = "ed25519"
      exportable = false
    }
  }
  request "policy-guestkey-custodian" {
    operation = "update"
    path      = "sys/policies/acl/guestkey-custodian"
    data = {
      policy = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/openbao/policies/guestkey-custodian.hcl"
      }
    }
  }
  request "policy-guestkey-ender" {
    operation = "update"
    path      = "sys/policies/acl/guestkey-ender"
    data = {
      policy = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/openbao/policies/guestkey-ender.hcl"
      }
    }
  }
  request "policy-guestkey-issuer" {
    operation = "update"
    path      = "sys/policies/acl/guestkey-issuer"
    data = {
      policy = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/openbao/policies/guestkey-issuer.hcl"
      }
    }
  }
  request "policy-guestkey-operator" {
    operation = "update"
    path      = "sys/policies/acl/guestkey-operator"
    data = {
      policy = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/openbao/policies/guestkey-operator.hcl"
      }
    }
  }
  request "policy-guestkey-setup" {
    operation = "update"
    path      = "sys/policies/acl/guestkey-setup"
    data = {
      policy = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/openbao/policies/guestkey-setup.hcl"
      }
    }
  }
  request "role-guestkey-issuer" {
    operation = "update"
    path      = "auth/approle/role/guestkey-issuer"
    data = {
      token_policies = ["guestkey-issuer"]
      token_no_default_policy = true
      token_period = "1h"
      secret_id_num_uses = 0
      secret_id_ttl = 0
    }
  }
  request "role-id-guestkey-issuer" {
    operation = "update"
    path      = "auth/approle/role/guestkey-issuer/role-id"
    data = {
      role_id = "guestkey-issuer"
    }
  }
  request "secret-id-guestkey-issuer" {
    operation = "update"
    path      = "auth/approle/role/guestkey-issuer/custom-secret-id"
    data = {
      secret_id = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/run/secrets/guestkey_issuer_secret_id"
      }
    }
  }
  request "role-guestkey-ender" {
    operation = "update"
    path      = "auth/approle/role/guestkey-ender"
    data = {
      token_policies = ["guestkey-ender"]
      token_no_default_policy = true
      token_period = "1h"
      secret_id_num_uses = 0
      secret_id_ttl = 0
    }
  }
  request "role-id-guestkey-ender" {
    operation = "update"
    path      = "auth/approle/role/guestkey-ender/role-id"
    data = {
      role_id = "guestkey-ender"
    }
  }
  request "secret-id-guestkey-ender" {
    operation = "update"
    path      = "auth/approle/role/guestkey-ender/custom-secret-id"
    data = {
      secret_id = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/run/secrets/guestkey_ender_secret_id"
      }
    }
  }
  request "role-guestkey-setup" {
    operation = "update"
    path      = "auth/approle/role/guestkey-setup"
    data = {
      token_policies = ["guestkey-setup"]
      token_no_default_policy = true
      token_period = "1h"
      secret_id_num_uses = 0
      secret_id_ttl = 0
    }
  }
  request "role-id-guestkey-setup" {
    operation = "update"
    path      = "auth/approle/role/guestkey-setup/role-id"
    data = {
      role_id = "guestkey-setup"
    }
  }
  request "secret-id-guestkey-setup" {
    operation = "update"
    path      = "auth/approle/role/guestkey-setup/custom-secret-id"
    data = {
      secret_id = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/run/secrets/guestkey_setup_secret_id"
      }
    }
  }
  request "role-guestkey-operator" {
    operation = "update"
    path      = "auth/approle/role/guestkey-operator"
    data = {
      token_policies = ["guestkey-operator"]
      token_no_default_policy = true
      token_period = "1h"
      secret_id_num_uses = 0
      secret_id_ttl = 0
    }
  }
  request "role-id-guestkey-operator" {
    operation = "update"
    path      = "auth/approle/role/guestkey-operator/role-id"
    data = {
      role_id = "guestkey-operator"
    }
  }
  request "secret-id-guestkey-operator" {
    operation = "update"
    path      = "auth/approle/role/guestkey-operator/custom-secret-id"
    data = {
      secret_id = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/run/secrets/guestkey_operator_secret_id"
      }
    }
  }
  request "role-guestkey-custodian" {
    operation = "update"
    path      = "auth/approle/role/guestkey-custodian"
    data = {
      token_policies = ["guestkey-custodian"]
      token_no_default_policy = true
      token_period = "1h"
      secret_id_num_uses = 0
      secret_id_ttl = 0
    }
  }
  request "role-id-guestkey-custodian" {
    operation = "update"
    path      = "auth/approle/role/guestkey-custodian/role-id"
    data = {
      role_id = "guestkey-custodian"
    }
  }
  request "secret-id-guestkey-custodian" {
    operation = "update"
    path      = "auth/approle/role/guestkey-custodian/custom-secret-id"
    data = {
      secret_id = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/run/secrets/guestkey_custodian_secret_id"
      }
    }
  }
}
