"""The servers that a cluster has, on loopback from wheels: ``python -m tools.servers up | down``."""
