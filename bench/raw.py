"""What bare `sqlite3` takes for the same work, with no library in between: the yardstick.

WAL and `synchronous=FULL` as eventmill has it; checkpoints are SQLite's own, every 1000 pages.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from bench.rounds import Stopwatch, Work
from bench.shop import BATCH, CREATE, UPSERT

INSERT = "INSERT INTO log (key, data) VALUES (?, ?)"


def _open(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 1000")
    connection.execute("CREATE TABLE log (position INTEGER PRIMARY KEY, key TEXT NOT NULL, data BLOB NOT NULL)")
    connection.execute("CREATE TABLE place (position INTEGER NOT NULL)")
    connection.execute("INSERT INTO place VALUES (0)")
    connection.execute(CREATE)
    return connection


def append(file: Path, rows: Sequence[tuple[str, bytes]]) -> Work:
    """insert the rows, a hundred a commit."""
    with closing(_open(file)) as connection:
        with Stopwatch(len(rows)) as watch:
            _append(connection, rows)
        return watch.work


def _append(connection: sqlite3.Connection, rows: Sequence[tuple[str, bytes]]) -> None:
    for start in range(0, len(rows), BATCH):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, rows[start : start + BATCH])
        connection.execute("COMMIT")


def append_singly(file: Path, rows: Sequence[tuple[str, bytes]]) -> Work:
    """insert the rows, each in a commit of its own."""
    with closing(_open(file)) as connection:
        with Stopwatch(len(rows)) as watch:
            for row in rows:
                connection.execute(INSERT, row)
        return watch.work


class Outbox:
    """Rows that wait to be sent, and how far that has come."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def pages(self, size: int) -> Iterator[list[tuple[str, bytes]]]:
        """So many rows at a time; asking for the next page says that the last one was sent."""
        position = 0
        while page := self._connection.execute(
            "SELECT position, key, data FROM log WHERE position > ? ORDER BY position LIMIT ?", (position, size)
        ).fetchall():
            yield [(key, data) for _, key, data in page]
            position = page[-1][0]
            self._connection.execute("UPDATE place SET position = ?", (position,))


@contextmanager
def opened(file: Path, rows: Sequence[tuple[str, bytes]]) -> Iterator[Outbox]:
    """A log with these rows in it."""
    with closing(_open(file)) as connection:
        _append(connection, rows)
        yield Outbox(connection)


def consume(file: Path, rows: Sequence[tuple[str, bytes]]) -> Work:
    """read the rows back, a hundred at a time: an upsert for each, the cursor, a commit."""
    with closing(_open(file)) as connection:
        _append(connection, rows)
        with Stopwatch(len(rows)) as watch:
            _consume(connection)
        return watch.work


def _consume(connection: sqlite3.Connection) -> None:
    position = 0
    while True:
        connection.execute("BEGIN IMMEDIATE")
        page = connection.execute(
            "SELECT position, key, data FROM log WHERE position > ? ORDER BY position LIMIT ?", (position, BATCH)
        ).fetchall()
        for _, key, data in page:
            # A thousand customers, as with us: the last three digits of the order's number.
            connection.execute(UPSERT, (f"customer-{key[-3:]}", len(data)))
        if not page:
            connection.execute("COMMIT")
            return
        position = page[-1][0]
        connection.execute("UPDATE place SET position = ?", (position,))
        connection.execute("COMMIT")
