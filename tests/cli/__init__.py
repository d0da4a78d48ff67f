"""The `guestkey` command, as people and scripts run it."""
