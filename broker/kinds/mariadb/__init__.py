"""The kind `mariadb`."""
