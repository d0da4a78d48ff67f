"""The commands, one file a noun. Each gets a `Cli`, calls the API, prints; nothing is decided here."""
