"""Bringing a file's schema up to date, whoever comes first."""

from __future__ import annotations

import sqlite3
import time

from eventmill.backends.sql import migrations
from eventmill.core.errors import ConfigurationError

_STEPS = migrations.load("eventmill.backends.sqlite.migrations")


def applied(connection: sqlite3.Connection) -> dict[int, str]:
    """The steps this file has had, with their checksums; empty for a file without our tables."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'eventmill_schema'").fetchone():
        return {}
    return dict(connection.execute("SELECT version, checksum FROM eventmill_schema ORDER BY version").fetchall())


def check(connection: sqlite3.Connection, where: str) -> None:
    """Refuse a file that was never initialised, or whose schema this code does not know."""
    if migrations.pending(_STEPS, applied(connection), where):
        raise ConfigurationError(f"{where} has no eventmill schema yet: open it with an App first")


def migrate(connection: sqlite3.Connection, where: str) -> None:
    """Apply what is missing, in the caller's transaction if there is one, else in one of its own.

    Several processes may do this at once: the write lock lets one go first, and the others find it done.
    """
    if not migrations.pending(_STEPS, applied(connection), where):
        return
    own = not connection.in_transaction
    if own:
        connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS eventmill_schema"
            " (version INTEGER PRIMARY KEY, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL)"
        )
        for step in migrations.pending(_STEPS, applied(connection), where):
            for statement in step.statements:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO eventmill_schema VALUES (?, ?, ?)", (step.version, step.checksum, int(time.time() * 1000))
            )
        if own:
            connection.execute("COMMIT")
    except BaseException:
        if own and connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
