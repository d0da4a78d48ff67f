"""Asking the gate: gathers the facts, foresees, explains. The decision itself is `policies/`."""
