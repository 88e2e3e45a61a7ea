"""Noted changes as a stream. Each is a transaction of its own: triggers do not see where those of the file end."""

# ruff: noqa: S608 - names of tables and columns cannot be parameters; they are quoted

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from eventmill.backends.sqlite.capturing.noting import as_value, from_noted_row, noted_row, quoted, row_noting
from eventmill.backends.sqlite.capturing.triggers import Installation, shape_of
from eventmill.backends.sqlite.connection import translate
from eventmill.core.changes import Begin, Commit, Entry, Key, Marked, Reshaped, Row, RowChange, Shape
from eventmill.core.errors import ConfigurationError

QUICK, SLOW = 0.002, 0.05
"""Seconds between looks at an idle file; the pause doubles up to the longer one."""

MARK = "mark"

AT_ONCE = 5_000
"""Changes that are removed in one transaction at most: others want to write meanwhile."""

BUSY = 10_000
"""Milliseconds to wait for another process's lock."""


class SqliteStream:
    """Reads what was noted, and removes what is confirmed. One connection, used by one thread at a time."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        installed: Installation,
        position: int,
        shapes: Mapping[str, Shape],
    ) -> None:
        self._connection = connection
        self._path = path
        self._installed = installed
        self._next = position
        self._shapes = dict(shapes)
        self._confirmed = 0
        self._removed = 0
        self._schema = -1
        self._version = -1
        self._pause = QUICK
        self._lock = threading.Lock()

    def close(self) -> None:
        """A look that was given up may still be under way in its thread."""
        with self._lock:
            self._connection.close()

    async def read(self, limit: int, timeout: float) -> Sequence[Entry]:
        deadline = monotonic() + timeout
        while True:
            entries = await asyncio.to_thread(self._look, limit)
            if entries:
                self._pause = QUICK
                return entries
            if monotonic() >= deadline:
                return entries
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, SLOW)

    def confirm(self, position: int) -> None:
        self._confirmed = max(self._confirmed, position)

    def _look(self, limit: int) -> list[Entry]:
        try:
            with self._lock:
                return self._changes(limit)
        except sqlite3.Error as error:
            raise translate(error, self._path) from error

    def _changes(self, limit: int) -> list[Entry]:
        connection = self._connection
        if self._confirmed - self._removed >= 1_000 or (self._confirmed > self._removed and self._pause >= SLOW):
            self._remove()
        # Says whether another connection has committed anything since the last look.
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return []
        (schema,) = connection.execute("PRAGMA schema_version").fetchone()
        entries: list[Entry] = []
        if schema != self._schema:
            entries += self._reshape()
            (self._schema,) = connection.execute("PRAGMA schema_version").fetchone()
        rows = connection.execute(
            f"SELECT id, tab, op, before, after, at FROM {quoted(self._installed.changes)}"
            " WHERE id >= ? ORDER BY id LIMIT ?",
            (self._next, limit),
        ).fetchall()
        if len(rows) < limit:
            self._version = version
        for row in rows:
            self._tell(entries, *row)
        return entries

    def _remove(self) -> None:
        """What is confirmed, unless somebody else writes: it can wait, and the file's own program must not."""
        connection = self._connection
        until = min(self._confirmed, max(self._removed, self._first()) + AT_ONCE)
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute(f"DELETE FROM {quoted(self._installed.changes)} WHERE id < ?", (until,))
                self._removed = until
        finally:
            connection.execute(f"PRAGMA busy_timeout = {BUSY}")

    def _first(self) -> int:
        found = self._connection.execute(f"SELECT min(id) FROM {quoted(self._installed.changes)}").fetchone()
        return int(found[0] or self._confirmed)

    def _tell(
        self, entries: list[Entry], number: int, table: str, op: Any, before: str | None, after: str | None, at: int
    ) -> None:
        entries.append(Begin(number, number, at * 1000))
        if op == MARK:
            entries.append(Marked(table))
        elif (shape := self._shapes.get(table)) is not None:
            entries.append(_change(shape, op, from_noted_row(before), from_noted_row(after)))
        entries.append(Commit(number + 1))
        self._next = number + 1

    def _reshape(self) -> list[Entry]:
        """The file's schema was changed, maybe a captured table's: then its triggers must note other columns.

        What they noted since, they noted by the former columns, so those rows are noted again as they are now.
        """
        connection, installed = self._connection, self._installed
        entries: list[Entry] = []
        connection.execute("BEGIN IMMEDIATE")
        try:
            gap = installed.gap(connection, self._shapes)
            if gap:
                raise ConfigurationError(
                    f"{self._path}: {gap}, so changes may be missing; begin anew: eventmill cdc init --anew"
                )
            for table, former in self._shapes.items():
                shape = shape_of(connection, table)
                if shape == former:
                    continue
                _refuse_another_key(former, shape)
                installed.watch(connection, shape)
                self._shapes[table] = shape
                entries.append(Reshaped(shape, former))
                self._note_again(shape)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return entries

    def _note_again(self, shape: Shape) -> None:
        changes = quoted(self._installed.changes)
        noted = self._connection.execute(
            f"SELECT after, at FROM {changes} WHERE id >= ? AND tab = ? AND after IS NOT NULL",
            (self._next, shape.table),
        )
        keys = {}
        for after, at in noted.fetchall():
            values = noted_row(after)
            keys[tuple([values.get(name) for name in shape.key])] = at
        same = " AND ".join(f"t.{quoted(name)} IS ?" for name in shape.key)
        row = row_noting("t", shape)
        self._connection.executemany(
            f"INSERT INTO {changes} (tab, op, before, after, at)"
            f" SELECT ?, 'update', {row}, {row}, ? FROM {quoted(shape.table)} AS t WHERE {same}",
            [
                (shape.table, at, *[None if value is None else as_value(value) for value in key])
                for key, at in keys.items()
            ],
        )


def _key(shape: Shape, row: Row) -> Key:
    return tuple([row.get(name) for name in shape.key])


def _change(shape: Shape, op: Any, before: Row | None, after: Row | None) -> RowChange:
    if after is None:
        assert before is not None
        return RowChange(shape.table, op, _key(shape, before), before, None)
    key = _key(shape, after)
    former = None if before is None else _key(shape, before)
    return RowChange(shape.table, op, key, before, after, (), former if former not in (None, key) else None)


def _refuse_another_key(former: Shape, shape: Shape) -> None:
    types = {column.name: column.type for column in shape.columns}
    for name in former.key:
        if name not in types or name not in shape.key or len(shape.key) != len(former.key):
            raise ConfigurationError(
                f"table {shape.table}: column {name} is of its key no more (it is {', '.join(shape.key)} now); "
                "begin anew: eventmill cdc init --anew"
            )
