"""One connection, driven at the level of the wire: statements go out together, and come back together.

psycopg's cursor costs some sixty microseconds a statement, and waits for each. Here a statement is handed to libpq's
pipeline mode; what several tasks hand over in one turn of the event loop is one write, and their answers one read.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import PyFormat, Transformer

from eventmill.backends.postgres import faults
from eventmill.backends.postgres.values import Value
from eventmill.core import fork
from eventmill.core.errors import BackendError
from eventmill.core.rows import Row, Rows

SILENCE = 4.0
"""Seconds without an answer after which it is asked elsewhere whether one will come."""

PREPARED = 400
"""Statements kept prepared on a connection; further ones are parsed each time."""

_OK = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_SYNC = pq.ExecStatus.PIPELINE_SYNC
_ABORTED = pq.ExecStatus.PIPELINE_ABORTED

Settle = Callable[[pq.abc.PGresult | None, Exception | None], None]
"""Called once for each statement: with its result, or with its error."""


class SkippedError(Exception):
    """The statement was not run, because one before it in the same write had failed."""


def nothing(result: pq.abc.PGresult | None, error: Exception | None) -> None:
    """For answers that another answer makes superfluous."""


class Pipeline:
    """A connection in pipeline mode. All calls from one event loop; nothing here waits.

    lost: called once when the connection breaks, after all that was under way has been told. alive: asked when an
    answer stays out for SILENCE seconds: whether the server is still at it, or will never answer.
    """

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        where: str,
        *,
        prepare: bool,
        lost: Callable[[], None],
        alive: Callable[[Pipeline], Awaitable[bool]],
    ) -> None:
        self.where = where
        self.transformer = Transformer(connection)
        self.closed = False
        self.direct = True
        """Whether the server's own process is at the other end, and not a pooler that changes it."""
        self.heard = monotonic()
        self.statements = 0
        self.writes = 0
        self._connection = connection
        self._pg = connection.pgconn
        self._pid = self._pg.backend_pid
        self._lost = lost
        self._alive = alive
        self._heard: Callable[[], None] | None = None
        self._watching = False
        self._asking: asyncio.Task[None] | None = None
        self._prepare = prepare
        self._prepared: dict[tuple[bytes, Sequence[int]], bytes] = {}
        self._named = 0
        self._waiting: deque[Settle | None] = deque()  # None: a sync
        self._loop = asyncio.get_running_loop()
        self._flushing = False
        self._writing = False
        self._fork = fork.count
        self._broken_prepare: Exception | None = None
        self._socket = self._pg.socket
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()
        self._loop.add_reader(self._socket, self._readable)

    @property
    def backend_pid(self) -> int:
        return self._pid

    def ended(self) -> bool:
        """Whether the connection has broken, looked at now: the event loop may not have come to it yet."""
        if not self.closed:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            if poll.poll(0):
                self._readable()
        return self.closed

    @property
    def busy(self) -> bool:
        """Whether answers are outstanding."""
        return bool(self._waiting)

    # Sending

    def send(
        self,
        sql: bytes,
        settle: Settle,
        parameters: Sequence[Any] = (),
        types: Sequence[int] = (),
        formats: Sequence[int] = (),
        *,
        binary: int = 1,
    ) -> None:
        """Hand over one statement; it leaves with the others of this turn of the event loop."""
        if self.closed or self._fork != fork.count:
            self._loop.call_soon(settle, None, faults.ConnectionLost(f"{self.where}: the connection is closed"))
            return
        self.statements += 1
        pg = self._pg
        try:
            key = (sql, types)
            name = self._prepared.get(key)
            if name is None and self._prepare and len(self._prepared) < PREPARED:
                self._named += 1
                name = self._prepared[key] = b"em%d" % self._named
                pg.send_prepare(name, sql, types)
                self._waiting.append(lambda result, error: self._was_prepared(key, error))
            if name is None:
                pg.send_query_params(sql, parameters, types, formats, binary)
            else:
                pg.send_query_prepared(name, parameters, formats, binary)
        except psycopg.OperationalError as error:
            self._loop.call_soon(settle, None, faults.ConnectionLost(f"{self.where}: {error}"))
            self._break(error)
            return
        self._waiting.append(settle)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def call(self, sql: bytes, settle: Settle, values: Sequence[Value] = ()) -> None:
        """Hand over one of eventmill's own statements; its rows come in binary."""
        if values:
            types, formats, parameters = zip(*values, strict=True)
            self.send(sql, settle, parameters, types, formats)
        else:
            self.send(sql, settle)

    def sync(self) -> None:
        """What follows is run even if what came before failed."""
        if self.closed or self._fork != fork.count:
            return
        try:
            self._pg.pipeline_sync()
        except psycopg.OperationalError as error:
            self._break(error)
            return
        self._waiting.append(None)

    def _flush(self) -> None:
        self._flushing = False
        if self.closed:
            return
        if self._waiting and self._waiting[-1] is not None:
            self.sync()
        self.writes += 1
        self._write()
        if not self._watching and self._waiting:
            self._watching = True
            self.heard = monotonic()
            self._loop.call_later(SILENCE / 2, self._watch)

    def _watch(self) -> None:
        """A connection whose other end is gone without a word must not be waited on for ever."""
        self._watching = not self.closed and bool(self._waiting) and self._fork == fork.count
        if not self._watching:
            return
        if monotonic() - self.heard > SILENCE and (self._asking is None or self._asking.done()):
            self._asking = self._loop.create_task(self._ask())
        self._loop.call_later(SILENCE / 2, self._watch)

    async def _ask(self) -> None:
        heard = self.heard
        alive = await self._alive(self)
        if not alive and self.heard == heard and not self.closed:
            self.abandon(faults.ConnectionLost(f"{self.where}: the connection does not answer any more"))

    def _write(self) -> None:
        if self.closed:
            return
        try:
            left = self._pg.flush()
        except psycopg.OperationalError as error:
            self._break(error)
            return
        if left and not self._writing:
            self._writing = True
            self._loop.add_writer(self._socket, self._write)
        elif not left and self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket)

    # Receiving

    def _readable(self) -> None:
        pg = self._pg
        waiting = self._waiting
        self.heard = monotonic()
        try:
            pg.consume_input()
            while waiting and not pg.is_busy():
                result = pg.get_result()
                if result is None:
                    continue
                status = result.status
                if status == _SYNC:
                    # Whatever stands before the sync was answered; a prepare's error went to its statement.
                    waiting.popleft()
                    self._broken_prepare = None
                    continue
                settle = waiting.popleft()
                if settle is None:
                    # Not an answer: the server says goodbye.
                    waiting.appendleft(None)
                    raise faults.of_result(result)
                if status in _OK:
                    settle(result, None)
                elif status == _ABORTED:
                    error, self._broken_prepare = self._broken_prepare, None
                    settle(None, error or SkippedError())
                else:
                    failure = faults.of_result(result)
                    if faults.ends_connection(failure):
                        waiting.appendleft(settle)
                        raise failure
                    settle(None, failure)
                if self.closed:
                    return
            if not waiting:
                pg.is_busy()  # lets libpq look at what the server says by itself
                while (notice := pg.notifies()) is not None:
                    if self._heard is not None and notice.be_pid != self._pid:
                        self._heard()
            if pg.status == pq.ConnStatus.BAD:
                raise psycopg.OperationalError(pg.get_error_message() or "the connection is closed")
        except psycopg.Error as error:
            self._break(error)

    def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Call `heard` whenever another connection says NOTIFY. Through a pooler nothing is ever heard."""
        if self.direct:
            self._heard = heard
            self.send(f'LISTEN "{channel}"'.encode(), nothing)
            self.sync()

    def _was_prepared(self, key: tuple[bytes, Sequence[int]], error: Exception | None) -> None:
        if error is not None:
            self._prepared.pop(key, None)
            if not isinstance(error, SkippedError):
                self._broken_prepare = error

    def forget_prepared(self) -> None:
        """Prepare everything anew: the tables may have changed."""
        self._prepared.clear()

    # Ending

    def _break(self, error: Exception) -> None:
        self.abandon(faults.ConnectionLost(f"{self.where}: {_first_line(error)}"))

    def abandon(self, error: Exception) -> None:
        """Give the connection up: everything outstanding ends with this error."""
        if self.closed:
            return
        self.closed = True
        if self._fork == fork.count:
            self._loop.remove_reader(self._socket)
            if self._writing:
                self._loop.remove_writer(self._socket)
        if self._asking is not None and self._asking is not asyncio.current_task(self._loop):
            self._asking.cancel()
        waiting, self._waiting = self._waiting, deque()
        self._pg.finish()
        for settle in waiting:
            if settle is not None:
                settle(None, error)
        self._lost()

    def close(self) -> None:
        """Close. A forked child lets go of its parent's connection without a touch."""
        if self._fork == fork.count and not self.closed:
            self._lost = _no_one
            self.abandon(BackendError(f"{self.where} is closed"))

    # Rows

    def rows(self, result: pq.abc.PGresult) -> list[Row]:
        """The rows of one of eventmill's own statements."""
        self.transformer.set_pgresult(result, set_loaders=True, format=None)
        return self.transformer.load_rows(0, result.ntuples, tuple)

    def user_rows(self, result: pq.abc.PGresult) -> Rows:
        """The rows of a statement of the user's, with their names."""
        if result.status == pq.ExecStatus.TUPLES_OK:
            self.transformer.set_pgresult(result, set_loaders=True)
            rows = Rows(self.transformer.load_rows(0, result.ntuples, tuple))
            rows.columns = tuple([(result.fname(place) or b"").decode() for place in range(result.nfields)])
        else:
            rows = Rows()
        changed = result.command_tuples
        rows.rowcount = -1 if changed is None else changed
        return rows

    def dump(self, parameters: Sequence[object]) -> tuple[Sequence[Any], Sequence[int], Sequence[int]]:
        """Parameters of the user's as psycopg writes them: bytes, types, formats."""
        transformer = self.transformer
        dumped = transformer.dump_sequence(parameters, [PyFormat.AUTO] * len(parameters))
        return dumped, transformer.types or (), transformer.formats or ()

    async def fetch(self, sql: bytes, values: Sequence[Value] = ()) -> list[Row]:
        """Run one of eventmill's own statements by itself and return its rows. Raises the server's error as psycopg has it."""
        reply: asyncio.Future[pq.abc.PGresult] = self._loop.create_future()
        self.call(sql, answer(reply), values)
        self.sync()  # by itself: what others ask in the same turn must not fail with it
        result = await reply
        return self.rows(result) if result.ntuples else []


def answer(reply: asyncio.Future[pq.abc.PGresult]) -> Settle:
    def settle(result: pq.abc.PGresult | None, error: Exception | None) -> None:
        if reply.done():
            return  # whoever asked was cancelled
        if error is not None:
            reply.set_exception(error)
        else:
            assert result is not None
            reply.set_result(result)

    return settle


def _no_one() -> None:
    pass


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def forgotten() -> asyncio.Future[pq.abc.PGresult]:
    """A reply that nobody waits for."""
    future: asyncio.Future[pq.abc.PGresult] = asyncio.get_running_loop().create_future()
    future.cancel()
    return future
