"""What the parts of the backend have in common: an open file, units on it, and reads that take long."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from eventmill.backends.sqlite.checkpoint import truncate
from eventmill.backends.sqlite.connection import connect, translate, translated
from eventmill.backends.sqlite.open_file import STATEMENTS, OpenFile, acquire, release
from eventmill.backends.sqlite.unit import SqliteUnit
from eventmill.backends.sqlite.writer import Writer
from eventmill.core.capabilities import Transaction
from eventmill.core.claims import Cursor, Fence
from eventmill.core.clock import Clock, SystemClock
from eventmill.core.document import Document
from eventmill.core.errors import BackendError, BackendUnavailableError
from eventmill.core.job import Job

T = TypeVar("T")


class Database:
    """What every part of the backend stands on. Open it with `async with`.

    shared: use the connections that this event loop has open on the file already, if it has.
    """

    def __init__(
        self,
        path: str,
        clock: Clock | None = None,
        *,
        synchronous: str = "full",
        busy_timeout: float = 30.0,
        readonly: bool = False,
        shared: bool = False,
    ) -> None:
        self.path = str(Path(path).absolute())
        self.clock = clock or SystemClock()
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._readonly = readonly
        self._shared = shared
        self._file: OpenFile | None = None
        self._writer: Writer | None = None
        self._beater: sqlite3.Connection | None = None
        self._beating = threading.Lock()

    def __repr__(self) -> str:
        return f"sqlite:///{self.path}"

    async def __aenter__(self) -> Self:
        self._file = acquire(
            self.path,
            self.clock,
            synchronous=self._synchronous,
            busy_timeout=self._busy_timeout,
            readonly=self._readonly,
            shared=self._shared,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            self._writer = None
            await release(file)
        with self._beating:
            if self._beater is not None:
                self._beater.close()
                self._beater = None

    def now(self) -> int:
        """Milliseconds since 1970 UTC."""
        return int(self.clock.now() * 1000)

    @property
    def file(self) -> OpenFile:
        if self._file is None:
            raise BackendError(f"{self.path} is not open; use `async with`")
        return self._file

    @property
    def writer(self) -> Writer:
        if self._writer is None:
            self._writer = self.file.writer
        return self._writer

    @property
    def reader(self) -> sqlite3.Connection:
        return self.file.reader

    def unit(self, claim: Cursor | Job | None = None, fence: Fence | None = None) -> SqliteUnit:
        return SqliteUnit(self.writer, STATEMENTS, self.clock, claim, fence)

    async def scrub(self) -> None:
        """Move the write-ahead log into the file and cut it off: it holds pages as they were before."""
        for pause in (0.05, 0.2, 1.0, None):
            if await asyncio.get_running_loop().run_in_executor(None, truncate, self.path, self._synchronous):
                return
            if pause is not None:
                await self.clock.sleep(pause)
        raise BackendUnavailableError(
            f"{self.path}: a reader or another checkpoint keeps the write-ahead log, which holds pages as they were "
            "before: do this again when it has ended"
        )

    @translated
    async def document(self, key: str) -> Document | None:
        row = self.reader.execute(STATEMENTS["document"], (key,)).fetchone()
        return None if row is None else Document(key, *row)

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
        return await self.file.watcher.changed(seen, timeout)

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run some statements as a unit of their own; durable when it returns."""
        unit = self.unit()
        connection = await unit.enter()
        try:
            result = work(connection)
            # What units of the same commit were told about leases may have changed.
            self.writer.recheck_leases()
        except sqlite3.Error as error:
            met = unit.met(error)
            await unit.discard()
            raise met from error
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
