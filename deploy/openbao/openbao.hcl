# OpenBao for Guestkey: TLS, raft, a seal key and an audit file of its own. Nobody is ever handed a root token;
# broker/embedded/initialize.hcl, mounted beside this file, sets everything up on the first start.
ui           = false
api_addr     = "https://openbao:8200"
cluster_addr = "https://openbao:8201"

# A standby that is cut off from its leader would go on using keys and tokens that were deleted or revoked since.
disable_standby_reads = true

listener "tcp" {
  address         = "0.0.0.0:8200"
  cluster_address = "0.0.0.0:8201"
  tls_cert_file   = "/run/secrets/openbao.crt"
  tls_key_file    = "/run/secrets/openbao.key"
  tls_min_version = "tls13"
}

storage "raft" {
  path                   = "/openbao/file"
  node_id                = "openbao-1"
  performance_multiplier = 1
}

# Kept apart from the data it opens: whoever has this file and the raft folder has everything.
# A cloud's or HSM's seal is better where there is one.
seal "static" {
  current_key_id = "guestkey-1"
  current_key    = "file:///run/secrets/openbao_seal_key"
}

# If this file cannot be written, OpenBao serves nobody: alert on health 429 as well as on 503.
audit "file" "main" {
  options {
    file_path = "/openbao/logs/audit.log"
    mode      = "0600"
  }
}
