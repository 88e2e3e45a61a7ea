"""SQLite: the whole library on one file, with no server."""
