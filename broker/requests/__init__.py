"""Asking for access, and deciding about it."""
