"""Benchmarks: ratios measured in one run on the real parts."""
