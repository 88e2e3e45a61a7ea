"""The transaction as handlers and callers see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol, TypeVar

from eventmill.core.capabilities import Unit
from eventmill.core.document import Document
from eventmill.core.envelope import Envelopes
from eventmill.core.errors import OutsideTransactionError
from eventmill.core.rows import Rows, SqlParameters

T = TypeVar("T")


class Sendable(Protocol):
    """What `send` takes: `task.job(…)`, or a group of them."""

    def stage(self, transaction: Transaction, *, after: float | None = None, at: datetime | None = None) -> str: ...


current: ContextVar[Transaction | None] = ContextVar("eventmill_transaction", default=None)
"""The transaction that the running handler, or `async with app.transaction()`, stands in."""


class Transaction:
    """Your own SQL, and the messages that leave only if it commits.

    Everything in one transaction is one commit: rows, messages, documents and, in a handler, the
    mark that the message was handled. Statements see each other at once. On SQLite they hold the
    write lock of the file from the first one on: do slow things before it.
    """

    __slots__ = ("_deferred", "_envelopes", "_open", "_unit", "execute")

    def __init__(self, unit: Unit, envelopes: Envelopes) -> None:
        self._unit = unit
        self._envelopes = envelopes
        self._open = True
        self._deferred: Sequence[Callable[[Unit], Awaitable[None]]] = ()
        self.execute: Callable[..., Awaitable[Rows]] = unit.execute
        """Run one statement, `await tx.execute(sql, parameters)`; `?` or `:name` mark parameters on every backend."""

    def executemany(self, sql: str, rows: Sequence[SqlParameters]) -> Awaitable[int]:
        """Run one statement for many rows; returns how many rows it changed."""
        return self._unit.executemany(sql, rows)

    def publish(self, *events: object) -> None:
        """Publish when, and only when, this transaction commits."""
        if not self._open:
            raise OutsideTransactionError("this transaction has ended; publish before the handler returns")
        self._unit.append([self._envelopes(event) for event in events])

    def send(self, call: Sendable, *, after: float | None = None, at: datetime | None = None) -> str:
        """Let a worker run a task when, and only when, this transaction commits; returns the id of what will run.

        after: seconds to wait first. at: a moment with its time zone.
        """
        if not self._open:
            raise OutsideTransactionError("this transaction has ended; send before the handler returns")
        return call.stage(self, after=after, at=at)

    def defer(self, work: Callable[[Unit], Awaitable[None]]) -> None:
        """Have something done in the unit when everything else was, right before the commit."""
        self._deferred = [*self._deferred, work]

    async def conclude(self) -> None:
        """Do what was deferred; whoever ends the unit well calls this before."""
        deferred, self._deferred = self._deferred, ()
        for work in deferred:
            await work(self._unit)

    async def get(self, key: str) -> Document | None:
        """The document under a key, as this transaction sees it."""
        return await self._unit.get(key)

    async def get_many(self, keys: Collection[str]) -> Mapping[str, Document]:
        """Those documents that are there, by their keys. They are not kept from others: write them with `expected`."""
        return await self._unit.get_many(keys)

    def put(self, key: str, data: bytes | None, *, expected: int | None = None) -> None:
        """Store a document when this commits; None deletes it. See `Document` and `ABSENT`.

        With `expected`, the transaction ends with ConflictError where another version is found.
        """
        self._unit.put(key, data, expected=expected)

    def belongs_to(self, envelopes: Envelopes) -> bool:
        """Whether this transaction is of the app whose envelopes these are."""
        return self._envelopes is envelopes

    @property
    def open(self) -> bool:
        """Whether the transaction still takes work."""
        return self._open

    async def finish(self) -> Awaitable[object]:
        """Conclude and end the unit well, or undo it; what is returned is durability."""
        try:
            await self.conclude()
        except BaseException:
            await self._unit.discard()
            raise
        return await self._unit.finish()

    @property
    def deferred(self) -> bool:
        """Whether `conclude` has something to do."""
        return bool(self._deferred)

    @property
    def unit(self) -> Unit:
        """The backend's own unit of work."""
        return self._unit

    def close(self) -> None:
        """Take no more work; the runtime calls this when the handler has returned."""
        self._open = False


class SyncTransaction:
    """The same for `def` handlers and scripts: every statement is a call to the event loop and back."""

    __slots__ = ("_loop", "_transaction")

    def __init__(self, transaction: Transaction, loop: asyncio.AbstractEventLoop) -> None:
        self._transaction = transaction
        self._loop = loop

    def _call(self, make: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await make()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def execute(self, sql: str, parameters: SqlParameters = ()) -> Rows:
        """Run one statement; `?` or `:name` mark parameters on every backend."""
        return self._call(lambda: self._transaction.execute(sql, parameters))

    def executemany(self, sql: str, rows: Sequence[SqlParameters]) -> int:
        """Run one statement for many rows; returns how many rows it changed."""
        return self._call(lambda: self._transaction.executemany(sql, rows))

    def publish(self, *events: object) -> None:
        """Publish when, and only when, this transaction commits."""
        self._transaction.publish(*events)

    def send(self, call: Sendable, *, after: float | None = None, at: datetime | None = None) -> str:
        """Let a worker run a task when, and only when, this transaction commits; see `Transaction.send`."""
        return self._transaction.send(call, after=after, at=at)

    def get(self, key: str) -> Document | None:
        """The document under a key, as this transaction sees it."""
        return self._call(lambda: self._transaction.get(key))

    def put(self, key: str, data: bytes | None, *, expected: int | None = None) -> None:
        """Store a document when this commits; None deletes it."""
        self._transaction.put(key, data, expected=expected)
