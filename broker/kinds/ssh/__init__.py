"""The kind `ssh`."""
