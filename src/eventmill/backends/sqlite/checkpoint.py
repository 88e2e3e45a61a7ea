"""When, and on which connection, the WAL is moved into the database."""

from __future__ import annotations

import sqlite3

from eventmill.backends.sqlite.connection import connect, translate
from eventmill.core.crash import point

CHANGES = 8_000
COMMITS = 512


class Checkpoints:
    """Passive checkpoints on a connection of their own. The caller holds the write lock meanwhile.

    With the lock held, no writer can reset the WAL under the checkpoint: that race is what corrupts
    files in SQLite 3.7.0 to 3.51.2.
    """

    def __init__(self, path: str, synchronous: str) -> None:
        self._path = path
        self._synchronous = synchronous
        self._connection: sqlite3.Connection | None = None
        self._last = (0, 0)

    def due(self, changes: int, commits: int) -> bool:
        """Whether enough was written since the last one; asking counts as doing it."""
        if changes - self._last[0] < CHANGES and commits - self._last[1] < COMMITS:
            return False
        self._last = (changes, commits)
        return True

    def run(self) -> None:
        """Checkpoint. Raises sqlite3.Error where a reader or another process is in the way."""
        if self._connection is None:
            self._connection = connect(self._path, synchronous=self._synchronous)
        point("checkpoint.begin")
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        point("checkpoint.end")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def truncate(path: str, synchronous: str) -> bool:
    """Checkpoint everything, and cut the WAL off; returns False where somebody is in the way. It blocks for seconds.

    In this mode SQLite takes the write lock itself, and waits for it, so the race above cannot happen either.
    """
    connection = connect(path, synchronous=synchronous)
    try:
        connection.execute("PRAGMA busy_timeout = 10000")
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
    except sqlite3.Error as error:
        raise translate(error, path) from error
    finally:
        connection.close()
