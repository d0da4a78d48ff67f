"""Reaching servers that others run, with deadlines: HTTP and SMTP."""
