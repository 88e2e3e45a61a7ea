"""A connection for short questions, one statement each, made anew by itself when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

import psycopg

from eventmill.backends.postgres import faults
from eventmill.backends.postgres.address import Address
from eventmill.backends.postgres.announcer import channel
from eventmill.backends.postgres.connection import open_pipeline
from eventmill.backends.postgres.pipeline import Pipeline, nothing
from eventmill.backends.postgres.sql import statements
from eventmill.backends.postgres.values import Value, text
from eventmill.core import fork
from eventmill.core.errors import BackendError
from eventmill.core.rows import Row

ANSWER = 5.0
"""Seconds to wait for the answer to a short question before the connection counts as dead."""

PAUSE = 0.05
"""Seconds between attempts, from the second on."""


class Again:
    """Whether a question may be asked again after an error that was not its fault: until `patience` is over.

    Connections may break several times in a row, when a server restarts or an operator ends them all.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._until = monotonic() + address.patience
        self._asked = 0

    async def or_raise(self, error: psycopg.Error | faults.ConnectionLost) -> None:
        """Return, after a pause, when asking again may help; else raise the error as one of eventmill's own."""
        self._asked += 1
        once = self._asked == 1
        if isinstance(error, faults.ConnectionLost) and (once or monotonic() < self._until):
            await asyncio.sleep(0 if once else PAUSE)
        elif not once or not (faults.environmental(error) or getattr(error, "sqlstate", None) in faults.AGAIN):
            raise faults.translated(error, str(self._address)) from error


class Reader:
    """Questions of many tasks share the connection; what breaks under one is asked again.

    heard: called when another process has announced messages, which this connection listens to besides.
    """

    def __init__(self, address: Address, heard: Callable[[], None]) -> None:
        self.address = address
        self._heard = heard
        self.sql = statements(address.quoted)
        self._pipeline: Pipeline | None = None
        self._connecting: asyncio.Lock = asyncio.Lock()
        self._fork = fork.count
        self._closed = False

    async def connect(self) -> Pipeline:
        if self._closed:
            raise BackendError(f"{self.address} is closed")
        if self._fork != fork.count:
            raise BackendError(f"{self.address} was opened before a fork: open the App in the process that uses it")
        pipeline = self._pipeline
        if pipeline is not None and not pipeline.closed:
            return pipeline
        async with self._connecting:
            if self._pipeline is None or self._pipeline.closed:
                self._pipeline = await open_pipeline(self.address, self.address.patience, _noted)
                self._pipeline.listen(channel(self.address.schema), self._heard)
            return self._pipeline

    def announce(self) -> None:
        """Tell the other processes that messages were committed, if that can be done without waiting."""
        if self._pipeline is not None and not self._pipeline.closed and self._fork == fork.count:
            self._pipeline.call(self.sql["announce"], nothing, [text(channel(self.address.schema))])
            self._pipeline.sync()

    async def listens(self) -> bool:
        """Whether other processes' announcements are heard: not where a pooler stands between."""
        return (await self.connect()).direct

    async def fetch(self, name: str, values: Sequence[Value] = (), *, condition: bytes | None = None) -> list[Row]:
        """The rows of one of eventmill's statements. condition: what stands for its `{condition}`."""
        sql = self.sql[name] if condition is None else self.sql[name].replace(b"{condition}", condition)
        again = Again(self.address)
        while True:
            pipeline = await self.connect()
            try:
                async with asyncio.timeout(ANSWER):
                    return await pipeline.fetch(sql, values)
            except TimeoutError:
                error = faults.ConnectionLost(f"{self.address}: no answer within {ANSWER:g} s")
                pipeline.abandon(error)
                await again.or_raise(error)
            except (psycopg.Error, faults.ConnectionLost) as error:
                if getattr(error, "sqlstate", None) in faults.AGAIN:
                    pipeline.forget_prepared()
                await again.or_raise(error)

    async def close(self) -> None:
        self._closed = True
        if self._pipeline is not None:
            self._pipeline.close()


def _noted() -> None:
    """The next question finds the connection closed, and makes another."""
