"""The transaction as handlers and callers see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from itertools import zip_longest
from typing import Protocol, TypeVar

from eventmill.core.capabilities import Unit
from eventmill.core.document import Document
from eventmill.core.envelope import Envelopes
from eventmill.core.errors import ConfigurationError, OutsideTransactionError
from eventmill.core.message import Message
from eventmill.core.rows import Rows, SqlParameters
from eventmill.core.stream import ANY, Absence, Append, Appended, Query, Stream, check_append

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

    __slots__ = ("_deferred", "_envelopes", "_open", "_staged", "_unit", "_unsealed", "execute", "finished")

    def __init__(self, unit: Unit, envelopes: Envelopes) -> None:
        self._unit = unit
        self._envelopes = envelopes
        self._open = True
        self._deferred: Sequence[Callable[[Unit], Awaitable[None]]] = ()
        self.finished: Callable[[asyncio.Future[object]], None] | None = None
        self._staged: list[Message] = []
        self._unsealed: list[Sequence[Message] | Append] | None = None
        self.execute: Callable[..., Awaitable[Rows]] = unit.execute
        """Run one statement, `await tx.execute(sql, parameters)`; `?` or `:name` mark parameters on every backend."""

    def executemany(self, sql: str, rows: Sequence[SqlParameters]) -> Awaitable[int]:
        """Run one statement for many rows; returns how many rows it changed."""
        return self._unit.executemany(sql, rows)

    def publish(self, *events: object) -> None:
        """Publish when, and only when, this transaction commits."""
        if not self._open:
            raise OutsideTransactionError("this transaction has ended; publish before the handler returns")
        messages = [self._envelopes(event, unsealed=True) for event in events]
        self._staged += messages
        if self._unsealed is not None or self._envelopes.personal(messages):
            self._wait(messages)
        else:
            self._unit.append(messages)

    def append(self, stream: Stream | str, *events: object, expected: int = ANY, ids: Sequence[str] = ()) -> Appended:
        """Append events to a stream when this commits; without events, only require that it stands at `expected`.

        expected: the version of the stream before the first of them, ABSENT for a new one, or ANY. ids: identities of
        your own, one an event: where a former call has stored all of them, nothing is stored again.
        What is returned is filled in by the commit. The transaction ends with WrongExpectedVersionError where the stream stands
        elsewhere, with StreamClosedError where it is closed.
        """
        if not self._open:
            raise OutsideTransactionError("this transaction has ended; append before the handler returns")
        if isinstance(stream, str):
            stream = Stream.parse(stream)
        check_append(expected, ids, len(events))
        messages = [self._envelopes.in_stream(event, stream, identity) for event, identity in zip_longest(events, ids)]
        append = Append(stream, messages, expected, repeatable=bool(ids))
        self.stage(append)
        return append.appended

    def stage(self, append: Append) -> None:
        """Append messages that are made already; see `append`."""
        self._staged += append.messages
        if self._unsealed is not None or self._envelopes.personal(append.messages):
            self._wait(append)
        else:
            self._unit.append_to(append)

    def _wait(self, entry: Sequence[Message] | Append) -> None:
        """Keep what is to be sealed until `finish`, which can wait for keys; what comes after it waits, too, for the order's sake."""
        if self._unsealed is None:
            self._unsealed = []
        self._unsealed.append(entry)

    @property
    def pending(self) -> bool:
        """Whether `complete` has something to do."""
        return bool(self._deferred) or self._unsealed is not None

    async def complete(self) -> None:
        """Do what was deferred, then seal what is personal, which may have to wait for keys: the unit has it all after that."""
        deferred, self._deferred = self._deferred, ()
        for work in deferred:
            await work(self._unit)
        waiting, self._unsealed = self._unsealed, None
        sealer = self._envelopes.sealer
        if waiting and sealer is not None:
            for entry in waiting:
                if isinstance(entry, Append):
                    self._unit.append_to(replace(entry, messages=await sealer.seal(entry.messages, self._unit)))
                else:
                    self._unit.append(await sealer.seal(entry, self._unit))

    async def finish(self) -> Awaitable[object]:
        """Complete the unit, then end it well; see `Unit.finish`. For the runtime, in place of that."""
        if self.pending:
            try:
                await self.complete()
            except BaseException:
                await self._unit.discard()
                raise
        return await self._unit.finish()

    def require(self, *queries: Query, after: int) -> None:
        """Commit only if no event that one of the queries matches stands beyond a position: what was decided on still holds.

        The transaction ends with TagConflictError otherwise. Each query names at least one tag.
        """
        self._unit.require(Absence(queries, after))

    def send(self, call: Sendable, *, after: float | None = None, at: datetime | None = None) -> str:
        """Let a worker run a task when, and only when, this transaction commits; returns the id of what will run.

        after: seconds to wait first. at: a moment with its time zone.
        """
        if not self._open:
            raise OutsideTransactionError("this transaction has ended; send before the handler returns")
        stage = getattr(call, "stage", None)
        if stage is None:
            if isinstance(call, Coroutine):
                call.close()  # it was called, not sent
            raise ConfigurationError(f"{call!r} is no call of a task: give task.job(…), or group(…)")
        staged: str = stage(self, after=after, at=at)
        return staged

    def defer(self, work: Callable[[Unit], Awaitable[None]]) -> None:
        """Have something done in the unit when everything else was, right before the commit."""
        self._deferred = [*self._deferred, work]

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

    def when_finished(self, call: Callable[[asyncio.Future[object]], None]) -> None:
        """For patterns: be told when the handler's unit is in line for a commit; the future is that commit."""
        self.finished = call

    def staged(self, stream: Stream) -> Sequence[Message]:
        """What this transaction itself has for a stream so far."""
        return [each for each in self._staged if each.key == stream.key and each.topic == stream.topic]

    def belongs_to(self, envelopes: Envelopes) -> bool:
        """Whether this transaction is of the app whose envelopes these are."""
        return self._envelopes is envelopes

    @property
    def open(self) -> bool:
        """Whether the transaction still takes work."""
        return self._open

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

    def append(self, stream: Stream | str, *events: object, expected: int = ANY, ids: Sequence[str] = ()) -> Appended:
        """Append events to a stream when, and only when, this transaction commits; see `Transaction.append`."""
        return self._transaction.append(stream, *events, expected=expected, ids=ids)

    def require(self, *queries: Query, after: int) -> None:
        """Commit only if no event that one of the queries matches stands beyond a position."""
        self._transaction.require(*queries, after=after)

    def get(self, key: str) -> Document | None:
        """The document under a key, as this transaction sees it."""
        return self._call(lambda: self._transaction.get(key))

    def put(self, key: str, data: bytes | None, *, expected: int | None = None) -> None:
        """Store a document when this commits; None deletes it."""
        self._transaction.put(key, data, expected=expected)
