"""An open file: its writer, its reader, its watcher."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from eventmill.backends.sql.statements import load
from eventmill.backends.sqlite import schema
from eventmill.backends.sqlite.connection import connect, translate
from eventmill.backends.sqlite.unit import SqliteUnit
from eventmill.backends.sqlite.watcher import Watcher
from eventmill.backends.sqlite.writer import Writer
from eventmill.core.capabilities import Transaction
from eventmill.core.claims import Cursor, Fence
from eventmill.core.clock import Clock, SystemClock
from eventmill.core.errors import BackendError, BackendUnavailableError
from eventmill.core.job import Job

T = TypeVar("T")

STATEMENTS = load("eventmill.backends.sqlite", "statements.sql")


class Database:
    """What every part of the backend stands on. Open it with `async with`."""

    def __init__(
        self,
        path: str,
        clock: Clock | None = None,
        *,
        synchronous: str = "full",
        busy_timeout: float = 30.0,
        readonly: bool = False,
    ) -> None:
        self.path = str(Path(path).absolute())
        self.clock = clock or SystemClock()
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._readonly = readonly
        self._writer: Writer | None = None
        self._reader: sqlite3.Connection | None = None
        self._watcher: Watcher | None = None
        self._beater: sqlite3.Connection | None = None
        self._beating = threading.Lock()

    def __repr__(self) -> str:
        return f"sqlite:///{self.path}"

    async def __aenter__(self) -> Self:
        reader = self._open_reader()
        try:
            if self._readonly:
                schema.check(reader, self.path)
            else:
                reader.execute("PRAGMA busy_timeout = 5000")
                schema.migrate(reader, self.path)
                reader.execute("PRAGMA busy_timeout = 0")
                reader.execute("PRAGMA query_only = 1")
                self._writer = Writer(
                    self.path,
                    STATEMENTS,
                    self.clock,
                    synchronous=self._synchronous,
                    busy_timeout=self._busy_timeout,
                    committed=self._committed,
                )
        except BaseException as error:
            reader.close()
            if isinstance(error, sqlite3.Error):
                raise translate(error, self.path) from error
            raise
        self._reader = reader
        self._watcher = Watcher(reader)
        return self

    def _open_reader(self) -> sqlite3.Connection:
        if self._readonly and not Path(self.path).exists():
            raise BackendUnavailableError(f"{self.path}: no such file")
        return connect(self.path, synchronous=self._synchronous, readonly=self._readonly)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            await self._writer.close()
            self._writer = None
        if self._watcher is not None:
            await self._watcher.close()
            self._watcher = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        with self._beating:
            if self._beater is not None:
                self._beater.close()
                self._beater = None

    def _committed(self) -> None:
        if self._watcher is not None:
            self._watcher.notify()

    def now(self) -> int:
        """Milliseconds since 1970 UTC."""
        return int(self.clock.now() * 1000)

    @property
    def writer(self) -> Writer:
        if self._writer is None:
            raise BackendError(f"{self.path} is not open for writing; use `async with`")
        return self._writer

    @property
    def reader(self) -> sqlite3.Connection:
        if self._reader is None:
            raise BackendError(f"{self.path} is not open; use `async with`")
        return self._reader

    def unit(self, claim: Cursor | Job | None = None, fence: Fence | None = None) -> SqliteUnit:
        return SqliteUnit(self.writer, STATEMENTS, self.clock, claim, fence)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        unit = self.unit()
        try:
            yield unit
        except BaseException:
            await unit.discard()
            raise
        await (await unit.finish())

    async def changed(self, seen: int, timeout: float) -> int:
        if self._watcher is None:
            raise BackendError(f"{self.path} is not open; use `async with`")
        return await self._watcher.changed(seen, timeout)

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run some statements as a unit of their own; durable when it returns."""
        unit = self.unit()
        connection = await unit.enter()
        try:
            result = work(connection)
            # What units of the same commit were told about leases may have changed.
            self.writer.recheck_leases()
        except BaseException:
            await unit.discard()
            raise
        await (await unit.finish())
        return result

    async def _scan(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read that may take long on a thread and a connection of its own."""

        def run() -> T:
            connection = connect(self.path, synchronous=self._synchronous, readonly=True)
            try:
                connection.execute("PRAGMA busy_timeout = 5000")
                return work(connection)
            except sqlite3.Error as error:
                raise translate(error, self.path) from error
            finally:
                connection.close()

        return await asyncio.get_running_loop().run_in_executor(None, run)
