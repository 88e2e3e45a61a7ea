"""An SQLite file whose tables are captured, of a program that knows nothing of it."""

# ruff: noqa: S608 - names of tables and columns cannot be parameters; they are quoted

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import unquote

from eventmill.backends.sqlite.capturing.noting import as_text, as_value, from_column, quoted
from eventmill.backends.sqlite.capturing.stream import MARK, SqliteStream
from eventmill.backends.sqlite.capturing.triggers import Installation, shape_of
from eventmill.backends.sqlite.connection import translate
from eventmill.backends.url import Url
from eventmill.core.changes import Chunk, Health, Key, Row, Shape, Stream
from eventmill.core.clock import Clock
from eventmill.core.errors import ConfigurationError

T = TypeVar("T")

AGAIN = "begin anew: eventmill cdc init --anew"

STALE = 60.0
"""Seconds after which a change that nobody has taken says that nobody takes any."""


class Seen:
    """What a reader of the file could see: every change up to some number."""

    def __init__(self, last: int) -> None:
        self._last = last

    def saw(self, transaction: int) -> bool:
        return transaction <= self._last

    forgettable = saw


class SqliteSource:
    """Implements `eventmill.core.changes.Source` on one file. The file's journal mode is left as it is."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    @classmethod
    def from_url(cls, url: Url, clock: Clock) -> Self:
        if url.location or not url.path.strip("/"):
            raise url.refusal("a SQLite URL has three slashes and a file: sqlite:///legacy.db")
        url.allow()
        return cls(unquote(url.path[1:]), clock)

    def __repr__(self) -> str:
        return f"sqlite:///{self._path}"

    def _connect(self) -> sqlite3.Connection:
        if not Path(self._path).is_file():
            raise ConfigurationError(f"{self!r}: there is no such file; a capture does not create one")
        connection = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        # Checkpoints are its own program's: see `sqlite.connection`.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    async def _do(self, work: Callable[[sqlite3.Connection], T], *, write: bool = False) -> T:
        """In one transaction, on a connection of its own, in a thread: the file may be locked for long."""

        def run() -> T:
            connection = self._connect()
            try:
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    result = work(connection)
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
                return result
            except sqlite3.Error as error:
                raise translate(error, self._path) from error
            finally:
                connection.close()

        return await asyncio.to_thread(run)

    async def inspect(self, tables: Sequence[str]) -> Sequence[Shape]:
        return await self._do(lambda connection: [shape_of(connection, table) for table in tables])

    async def estimate(self, shape: Shape) -> int:
        def count(connection: sqlite3.Connection) -> int:
            (rows,) = connection.execute(f"SELECT count(*) FROM {quoted(shape.table)}").fetchone()
            return int(rows)

        return await self._do(count)

    async def prepare(self, name: str, shapes: Sequence[Shape], *, anew: bool) -> int:
        installed = Installation(name)

        def prepare(connection: sqlite3.Connection) -> int:
            if installed.exists(connection):
                if not anew:
                    raise ConfigurationError(
                        f"{self!r}: table {installed.changes} is there already, for a capture that this store does not know; "
                        "if it is no other service's, begin anew: eventmill cdc init --anew"
                    )
                installed.remove(connection)
            installed.install(connection, shapes)
            return installed.last(connection) + 1

        return await self._do(prepare, write=True)

    async def adjust(self, name: str, shapes: Sequence[Shape], kept: Sequence[Shape]) -> None:
        installed = Installation(name)

        def adjust(connection: sqlite3.Connection) -> None:
            watched = installed.watched(connection)
            gap = installed.gap(connection, [shape.table for shape in kept])
            if gap:
                raise ConfigurationError(f"{self!r}: {gap}, so changes are missing; {AGAIN}")
            for shape in shapes:
                if shape.table not in watched:
                    installed.watch(connection, shape)
            for table in watched - {shape.table for shape in shapes}:
                installed.unwatch(connection, table)

        await self._do(adjust, write=True)

    async def remove(self, name: str, tables: Sequence[str]) -> None:
        await self._do(Installation(name).remove, write=True)

    async def health(self, name: str, shapes: Collection[Shape] = ()) -> Health:
        installed = Installation(name)

        def look(connection: sqlite3.Connection) -> Health:
            if not installed.exists(connection):
                return Health(present=False)
            waiting, retained, oldest, first = connection.execute(
                "SELECT count(*), coalesce(sum(length(coalesce(before, '')) + length(coalesce(after, ''))), 0), min(at),"
                f" min(id) FROM {quoted(installed.changes)}"
            ).fetchone()
            head = installed.last(connection) + 1
            gap = installed.gap(connection, [shape.table for shape in shapes])
            active = not waiting or oldest / 1000 > self._clock.now() - STALE
            return Health(
                present=True,
                active=active,
                retained=retained,
                confirmed=first or head,
                head=head,
                status="triggers",
                gap=gap,
                unit="changes",
            )

        return await self._do(look)

    @asynccontextmanager
    async def stream(
        self, name: str, position: int, shapes: Mapping[str, Shape], prefixes: Collection[str]
    ) -> AsyncIterator[Stream]:
        if prefixes:
            raise ConfigurationError(f"{self!r}: messages= needs PostgreSQL, whose log takes messages without a table")
        installed = Installation(name)

        def check(connection: sqlite3.Connection) -> None:
            if not installed.exists(connection):
                raise ConfigurationError(f"{self!r}: table {installed.changes} is gone; {AGAIN}")
            if installed.last(connection) + 1 < position:
                raise ConfigurationError(
                    f"{self!r}: the file is behind what was captured from it (was a backup restored?); {AGAIN}"
                )

        await self._do(check)
        stream = SqliteStream(self._connect(), self._path, installed, position, shapes)
        try:
            yield stream
        finally:
            await asyncio.to_thread(stream.close)

    async def chunk(self, name: str, shape: Shape, after: Sequence[str] | None, limit: int) -> Chunk:
        def read(connection: sqlite3.Connection) -> Chunk:
            present = shape_of(connection, shape.table)
            key = ", ".join(map(quoted, present.key))
            names = [column.name for column in present.columns]
            condition = "" if after is None else f"WHERE ({key}) > ({', '.join('?' * len(present.key))})"
            found = connection.execute(
                f"SELECT {', '.join(map(quoted, names))} FROM {quoted(shape.table)} {condition} ORDER BY {key} LIMIT ?",
                [*map(as_value, after or ()), limit],
            ).fetchall()
            places = [names.index(column) for column in present.key]
            rows = []
            for values in found:
                row = {column: from_column(value) for column, value in zip(names, values, strict=True)}
                rows.append((tuple([row[column] for column in present.key]), row))
            last = [found[-1][place] for place in places] if found else []
            if None in last:
                raise ConfigurationError(
                    f"{self!r}: table {shape.table} has a row with NULL in its primary key: give it a value"
                )
            return Chunk(
                rows,
                tuple(map(as_text, last)) or None,
                len(rows) < limit,
                Seen(Installation(name).last(connection)),
                present,
            )

        return await self._do(read)

    async def mark(self, name: str, mark: str) -> None:
        def note(connection: sqlite3.Connection) -> None:
            connection.execute(
                f"INSERT INTO {quoted(Installation(name).changes)} (tab, op, at) VALUES (?, ?, ?)",
                (mark, MARK, int(self._clock.now() * 1000)),
            )

        await self._do(note, write=True)

    async def values(self, shape: Shape, key: Key, columns: Sequence[str]) -> Row | None:
        """Never asked: triggers note whole rows."""
        return {}

    async def close(self) -> None:
        """Nothing is kept open."""
