"""An open file: one writer, one reader and one watcher, shared by all of a process that want it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from eventmill.backends.sql.statements import load
from eventmill.backends.sqlite import schema
from eventmill.backends.sqlite.connection import connect, translate
from eventmill.backends.sqlite.tail import Tail
from eventmill.backends.sqlite.watcher import Watcher
from eventmill.backends.sqlite.writer import Writer
from eventmill.core import fork
from eventmill.core.clock import Clock, SystemClock
from eventmill.core.errors import BackendError, BackendUnavailableError

STATEMENTS = load("eventmill.backends.sqlite", "statements.sql")


class OpenFile:
    """Connections to one file in one event loop.

    Several Apps of a process that use one broker file share them: then their commits are grouped,
    and one look at the file serves them all.
    """

    def __init__(self, path: str, clock: Clock, *, synchronous: str, busy_timeout: float, readonly: bool) -> None:
        self.path = path
        self.users = 0
        self.fork = fork.count
        self.loop = asyncio.get_running_loop()
        self._writer: Writer | None = None
        if readonly and not Path(path).exists():
            raise BackendUnavailableError(f"{path}: no such file")
        self.reader = connect(path, synchronous=synchronous, readonly=readonly)
        try:
            if readonly:
                schema.check(self.reader, path)
            else:
                self.reader.execute("PRAGMA busy_timeout = 5000")
                schema.migrate(self.reader, path)
                self.reader.execute("PRAGMA busy_timeout = 0")
                self.reader.execute("PRAGMA query_only = 1")
                self._writer = Writer(
                    path,
                    STATEMENTS,
                    clock,
                    synchronous=synchronous,
                    busy_timeout=busy_timeout,
                    committed=self._committed,
                )
            self.watcher = Watcher(self.reader)
            self.tail = Tail(self.reader, STATEMENTS)
        except BaseException as error:
            self.reader.close()
            if isinstance(error, sqlite3.Error):
                raise translate(error, path) from error
            raise

    def _committed(self) -> None:
        self.watcher.notify()

    @property
    def writer(self) -> Writer:
        if self._writer is None:
            raise BackendError(f"{self.path} is open for reading only")
        return self._writer

    async def close(self) -> None:
        """Commit what is staged, then close. A forked child lets go of its parent's connections without a touch."""
        if self.fork != fork.count:
            return
        if self._writer is not None:
            await self._writer.close()
        await self.watcher.close()
        self.reader.close()


_files: dict[tuple[object, ...], OpenFile] = {}


def acquire(
    path: str, clock: Clock, *, synchronous: str, busy_timeout: float, readonly: bool, shared: bool
) -> OpenFile:
    """An open file: with `shared` the one that this loop has open already, if it has."""
    if not shared:
        return OpenFile(path, clock, synchronous=synchronous, busy_timeout=busy_timeout, readonly=readonly)
    time = SystemClock if isinstance(clock, SystemClock) else clock
    key = (path, synchronous, busy_timeout, readonly, time)
    found = _files.get(key)
    if found is None or found.fork != fork.count or found.loop is not asyncio.get_running_loop():
        found = OpenFile(path, clock, synchronous=synchronous, busy_timeout=busy_timeout, readonly=readonly)
        _files[key] = found
    found.users += 1
    return found


async def release(file: OpenFile) -> None:
    """Close the file, unless somebody else still uses it."""
    file.users -= 1
    if file.users > 0:
        return
    for key, known in list(_files.items()):
        if known is file:
            del _files[key]
    await file.close()
