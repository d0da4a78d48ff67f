"""The `guestkey` command: a client of the API. Imports nothing of the server, so the plain install stays light."""
