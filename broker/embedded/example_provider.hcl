# The identity provider of the example, which OpenBao is on one machine; no deployment has it.
initialize "example-provider" {
  request "userpass" {
    operation = "update"
    path      = "sys/auth/userpass"
    data = {
      type = "userpass"
    }
  }
  request "userpass-shown" {
    operation = "update"
    path      = "sys/auth/userpass/tune"
    data = {
      listing_visibility = "unauth"
    }
  }
  request "policy-guestkey-accounts" {
    operation = "update"
    path      = "sys/policies/acl/guestkey-accounts"
    data = {
      policy = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/openbao/policies/guestkey-accounts.hcl"
      }
    }
  }
  request "policy-guestkey-sign-in" {
    operation = "update"
    path      = "sys/policies/acl/guestkey-sign-in"
    data = {
      policy = {
        eval_source = "file"
        eval_type   = "string"
        path        = "/openbao/policies/guestkey-sign-in.hcl"
      }
    }
  }
  # The operator keeps its accounts, too.
  request "role-guestkey-operator" {
    operation = "update"
    path      = "auth/approle/role/guestkey-operator"
    data = {
      token_policies = ["guestkey-operator", "guestkey-accounts"]
    }
  }
}
