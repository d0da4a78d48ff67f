"""The kinds of credentials, a folder each. Nothing is imported here: the command line uses only a kind's client."""
