"""What the parts of the backend have in common: an open server, and units on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import psycopg

from eventmill.backends.postgres.address import Address
from eventmill.backends.postgres.beat import Beater
from eventmill.backends.postgres.faults import ConnectionLost
from eventmill.backends.postgres.open_server import OpenServer
from eventmill.backends.postgres.own import OwnUnit
from eventmill.backends.postgres.reader import Again
from eventmill.backends.postgres.unit import SharedUnit
from eventmill.backends.postgres.values import Value, text
from eventmill.core.capabilities import Transaction, Unit
from eventmill.core.claims import Cursor, Fence
from eventmill.core.clock import Clock, SystemClock
from eventmill.core.document import Document
from eventmill.core.errors import BackendError
from eventmill.core.job import Job


class Database:
    """What every part of the backend stands on. Open it with `async with`."""

    def __init__(self, address: Address, clock: Clock | None = None, *, readonly: bool = False) -> None:
        self.address = address
        self.clock = clock or SystemClock()
        self._readonly = readonly
        self._server: OpenServer | None = None
        self._beater = Beater(address, self.clock)

    def __repr__(self) -> str:
        return str(self.address)

    async def __aenter__(self) -> Self:
        server = OpenServer(self.address, self.clock, readonly=self._readonly)
        await server.open()
        self._server = server
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            await server.close()
        self._beater.close()

    def now(self) -> int:
        """Milliseconds since 1970 UTC."""
        return int(self.clock.now() * 1000)

    @property
    def server(self) -> OpenServer:
        if self._server is None:
            raise BackendError(f"{self.address} is not open; use `async with`")
        return self._server

    def unit(self, claim: Cursor | Job | None = None, fence: Fence | None = None) -> Unit:
        if claim is None and fence is None:
            return self._own_unit()
        return SharedUnit(self.server.units, self.server.topics, claim, fence)

    def _own_unit(self) -> OwnUnit:
        server = self.server
        return OwnUnit(self.address, server.pool, server.publishes, server.topics, server.outcomes)

    async def scrub(self) -> None:
        """Dead rows are the server's: VACUUM removes them, and only VACUUM FULL what they were made of."""

    async def document(self, key: str) -> Document | None:
        for version, data in await self.server.reader.fetch("document", [text(key)]):
            return Document(key, version, data)
        return None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with self._own() as unit:
            yield unit

    @asynccontextmanager
    async def _own(self) -> AsyncIterator[OwnUnit]:
        """A transaction for some of eventmill's own statements; durable when it has ended."""
        unit = self._own_unit()
        try:
            yield unit
        except BaseException:
            await unit.discard()
            raise
        await (await unit.finish())

    async def _fetch(self, name: str, *values: Value) -> list[tuple[Any, ...]]:
        return await self.server.reader.fetch(name, values)

    async def _scan(self, name: str, values: Sequence[Value], condition: str = "") -> list[tuple[Any, ...]]:
        """A question that may take long, on a connection of its own."""
        server = self.server
        sql = server.reader.sql[name].replace(b"{condition}", condition.encode())
        again = Again(self.address)
        while True:
            try:
                async with server.pool.connection() as pipeline:
                    return await pipeline.fetch(sql, values)
            except (psycopg.Error, ConnectionLost) as error:
                await again.or_raise(error)

    async def changed(self, seen: int, timeout: float) -> int:
        return await self.server.watcher.changed(seen, timeout)
