"""The rounds of the worker: end, sweep, register, reconcile, remind."""
