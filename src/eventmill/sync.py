"""A synchronous face for scripts and web frameworks: one event loop in the background."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from eventmill.app import App
from eventmill.core.aggregate import Aggregate
from eventmill.core.decider import Decider, Loaded
from eventmill.core.errors import ConfigurationError
from eventmill.core.retry import RetryPolicy
from eventmill.core.stream import ANY, Appended, Stream
from eventmill.patterns.sourcing.executed import Executed
from eventmill.runtime.transaction import SyncTransaction, Transaction

T = TypeVar("T")
A = TypeVar("A", bound=Aggregate)
S = TypeVar("S")


class SyncApp:
    """Use an App without `await`: `with SyncApp(app) as client: client.publish(OrderPlaced(…))`.

    Safe to call from any number of threads. It publishes and opens transactions; handling messages is
    `eventmill run`'s work.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        loop = asyncio.new_event_loop()
        self._loop = loop
        self._thread = threading.Thread(target=loop.run_forever, name="eventmill", daemon=True)
        self._thread.start()
        try:
            self._call(self._app.open())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._call(self._app.close())
        finally:
            self._end()

    def _end(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise ConfigurationError("use SyncApp inside `with SyncApp(app) as client:`")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def publish(self, *events: object) -> Sequence[int]:
        """Publish events; returns their positions when they are durable. See `App.publish`."""
        return self._call(self._app.publish(*events))

    def append(self, stream: Stream | str, *events: object, expected: int = ANY, ids: Sequence[str] = ()) -> Appended:
        """Append events to a stream; they are durable when this returns. See `App.append`."""
        return self._call(self._app.append(stream, *events, expected=expected, ids=ids))

    def execute(
        self,
        kind: type[Aggregate] | Decider[Any],
        id_: str,
        *command: Any,
        command_id: str | None = None,
        retry: RetryPolicy | None = None,
        **arguments: Any,
    ) -> Executed:
        """Run a command on an entity. See `App.execute`."""
        return self._call(self._app.execute(kind, id_, *command, command_id=command_id, retry=retry, **arguments))

    @overload
    def load(self, kind: type[A], id_: str, *, version: int | None = None, at: datetime | None = None) -> A: ...

    @overload
    def load(
        self, kind: Decider[S], id_: str, *, version: int | None = None, at: datetime | None = None
    ) -> Loaded[S]: ...

    def load(self, kind: Any, id_: str, *, version: int | None = None, at: datetime | None = None) -> Any:
        """An entity as it is, or as it was. See `App.load`."""
        return self._call(self._app.load(kind, id_, version=version, at=at))

    @contextmanager
    def transaction(self) -> Iterator[SyncTransaction]:
        """One transaction of your own SQL and your messages; see `App.transaction`."""
        if self._loop is None:
            raise ConfigurationError("use SyncApp inside `with SyncApp(app) as client:`")
        loop = self._loop
        opened: Future[tuple[Transaction, asyncio.Future[bool]]] = Future()
        held = asyncio.run_coroutine_threadsafe(self._hold(opened), loop)
        transaction, end = opened.result()
        try:
            yield SyncTransaction(transaction, loop)
        except BaseException:
            loop.call_soon_threadsafe(end.set_result, False)
            wait([held])
            raise
        loop.call_soon_threadsafe(end.set_result, True)
        held.result()

    async def _hold(self, opened: Future[tuple[Transaction, asyncio.Future[bool]]]) -> None:
        """Keep a transaction open in one task from its beginning to its end: it stands in a context variable of that task."""
        end: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        try:
            async with self._app.transaction() as transaction:
                opened.set_result((transaction, end))
                if not await end:
                    raise _Undone
        except _Undone:
            return
        except BaseException as error:
            if opened.done():
                raise  # the commit's error, for the end of the caller's block
            opened.set_exception(error)


class _Undone(Exception):
    """The caller's block raised; its own error is on its way already."""
