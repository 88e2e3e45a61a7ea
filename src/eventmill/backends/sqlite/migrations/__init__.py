"""Schema steps; see eventmill.backends.sql.migrations."""
