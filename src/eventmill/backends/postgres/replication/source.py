"""A PostgreSQL server whose tables are captured: nothing is installed there but a publication and a slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

import psycopg

from eventmill.backends.postgres import faults
from eventmill.backends.postgres.address import Address
from eventmill.backends.postgres.replication.chunks import read_chunk, read_values
from eventmill.backends.postgres.replication.connection import Connection
from eventmill.backends.postgres.replication.slot import Slot
from eventmill.backends.postgres.replication.stream import MARK, ReplicationStream
from eventmill.backends.postgres.replication.tables import Tables, catalogued, estimated, refuse_children
from eventmill.backends.postgres.replication.texts import SESSION
from eventmill.backends.postgres.replication.types import Types
from eventmill.backends.url import Url
from eventmill.core.changes import Chunk, Health, Key, Row, Shape, Stream
from eventmill.core.clock import Clock
from eventmill.core.errors import ConfigurationError

T = TypeVar("T")


class PostgresSource:
    """Implements `eventmill.core.changes.Source` on one database. Connections are made when they are needed."""

    def __init__(self, address: Address, clock: Clock) -> None:
        self._address = address
        self._clock = clock
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._types = Types()

    @classmethod
    def from_url(cls, url: Url, clock: Clock) -> Self:
        return cls(Address.from_url(url), clock)

    def __repr__(self) -> str:
        return str(self._address)

    async def _dial(self, **more: str) -> Connection:
        parameters = {**self._address.parameters, "options": SESSION, **more}
        try:
            async with asyncio.timeout(10):
                return await psycopg.AsyncConnection.connect(autocommit=True, prepare_threshold=None, **parameters)  # type: ignore[arg-type]
        except psycopg.OperationalError as error:
            if faults.hopeless(error):
                raise ConfigurationError(f"{self}: {str(error).strip()}") from error
            raise faults.translated(error, str(self)) from error
        except TimeoutError as error:
            raise faults.ConnectionLost(f"{self}: no answer within 10 s") from error

    async def _ask(self, question: Callable[[Connection], Awaitable[T]]) -> T:
        """Ask on the one connection for questions, one at a time."""
        async with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = await self._dial()
            try:
                return await question(self._connection)
            except psycopg.Error as error:
                if isinstance(error, psycopg.errors.InsufficientPrivilege):
                    raise ConfigurationError(f"{self}: {str(error).strip()}") from error
                raise faults.translated(error, str(self)) from error

    def _slot(self, connection: Connection, name: str) -> Slot:
        return Slot(connection, str(self), name)

    async def inspect(self, tables: Sequence[str]) -> Sequence[Shape]:
        return await self._ask(lambda connection: self._inspect(connection, tables))

    async def _inspect(self, connection: Connection, tables: Sequence[str]) -> list[Shape]:
        try:
            shapes = [(await catalogued(connection, self._types, table)).shape for table in tables]
            await refuse_children(connection, shapes)
            return shapes
        except ConfigurationError as error:
            raise ConfigurationError(f"{self}: {error}") from error

    async def estimate(self, shape: Shape) -> int:
        async def ask(connection: Connection) -> int:
            return await estimated(connection, await catalogued(connection, self._types, shape.table, shape))

        return await self._ask(ask)

    async def prepare(self, name: str, shapes: Sequence[Shape], *, anew: bool) -> int:
        return await self._ask(lambda connection: self._slot(connection, name).create(shapes, anew=anew))

    async def adjust(self, name: str, shapes: Sequence[Shape], kept: Sequence[Shape]) -> None:
        await self._ask(lambda connection: self._slot(connection, name).adjust(shapes, kept))

    async def remove(self, name: str, tables: Sequence[str]) -> None:
        await self._ask(lambda connection: self._slot(connection, name).drop())

    async def health(self, name: str, shapes: Collection[Shape] = ()) -> Health:
        return await self._ask(lambda connection: self._slot(connection, name).health(shapes))

    @asynccontextmanager
    async def stream(
        self, name: str, position: int, shapes: Mapping[str, Shape], prefixes: Collection[str]
    ) -> AsyncIterator[Stream]:
        async def check(connection: Connection) -> str:
            slot = self._slot(connection, name)
            await slot.check(position, shapes.values())
            await slot.free()
            await self._types.ask(connection)
            return slot.name

        async def learn(oids: Collection[int]) -> None:
            await self._ask(lambda connection: self._types.ask(connection, oids))

        slot = await self._ask(check)
        connection = await self._dial(replication="database")
        stream = ReplicationStream(
            connection, str(self), name, position, Tables(shapes, self._types), learn, prefixes, self._clock
        )  # fmt: skip
        try:
            try:
                await stream.begin(slot, slot)
            except psycopg.Error as error:
                raise faults.translated(error, str(self)) from error
            yield stream
        finally:
            await stream.close()

    async def chunk(self, name: str, shape: Shape, after: Sequence[str] | None, limit: int) -> Chunk:
        async def ask(connection: Connection) -> Chunk:
            try:
                return await read_chunk(connection, self._types, shape, after, limit)
            except psycopg.errors.UndefinedColumn:
                # Dropped or renamed between the look at the catalog and the question.
                return await read_chunk(connection, self._types, shape, after, limit)

        return await self._ask(ask)

    async def mark(self, name: str, mark: str) -> None:
        async def ask(connection: Connection) -> Any:
            # Transactional, since only a commit flushes the log: another mark might wait in memory for long.
            await connection.execute("SELECT pg_logical_emit_message(true, %s, %s)", (MARK, f"{name} {mark}"))

        await self._ask(ask)

    async def values(self, shape: Shape, key: Key, columns: Sequence[str]) -> Row | None:
        return await self._ask(lambda connection: read_values(connection, self._types, shape, key, columns))

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
