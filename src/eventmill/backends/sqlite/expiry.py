"""Taking from vanished members what they held."""

from __future__ import annotations

import sqlite3

from eventmill.backends.sqlite.open_file import STATEMENTS


def expire(connection: sqlite3.Connection, now: int) -> None:
    """Drop the members whose lease is over, under the write lock; their partitions and jobs are abandoned.

    now: milliseconds since 1970 UTC.
    """
    for group, member in connection.execute(STATEMENTS["expired"], (now,)).fetchall():
        connection.execute(STATEMENTS["drop_member"], (group, member))
        connection.execute(STATEMENTS["abandon_cursors"], (group, member))
        connection.execute(STATEMENTS["abandon_jobs"], (group, member))
        connection.execute(STATEMENTS["bump"], (group,))
