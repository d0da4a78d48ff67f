"""The kind `token`."""
