"""The kind `x509`."""
