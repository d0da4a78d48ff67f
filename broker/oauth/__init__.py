"""The authorization server (RFC 6749) for the command line and for services, and the keys of signed tokens."""
