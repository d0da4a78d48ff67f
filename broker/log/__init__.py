"""The audit log as it is written: events, hash tree, checkpoints. Reading it is `broker.auditing`."""
