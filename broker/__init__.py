"""Guestkey: the access-control and key-management broker for guests of your data."""
