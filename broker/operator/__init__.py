"""Commands that run on the server: they put the parts together and hand over. The `guestkey` command mounts them."""
