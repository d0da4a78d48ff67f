"""Ending rights in the records: marks leases, shuts people out, closes the installation. No backend is called here."""
