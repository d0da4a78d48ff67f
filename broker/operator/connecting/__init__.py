"""Connecting a customer's database: what must be there, what is missing, and OpenBao's side of it. By hand only."""
