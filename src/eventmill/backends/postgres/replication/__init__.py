"""Logical replication: another database's changes by the protocol that PostgreSQL's own replicas use."""
