"""Mutation testing: code changed on purpose, which tests must notice; see docs/testing.md."""
