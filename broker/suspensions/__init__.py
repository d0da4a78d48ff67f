"""Suspending a vendor, person or dataset, and ending everything in an emergency."""
