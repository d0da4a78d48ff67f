"""OpenBao or HashiCorp Vault: the only importer of hvac."""
