"""What one process works with: its parts, the rules in force, the installation, rounds shared among workers."""
