"""Capturing the changes of somebody else's SQLite file: triggers note them in a table, from which they are read."""
