"""A connection for short questions, one statement each, made anew by itself when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import psycopg

from eventmill.backends.postgres import faults
from eventmill.backends.postgres.address import Address
from eventmill.backends.postgres.connection import open_pipeline
from eventmill.backends.postgres.pipeline import Pipeline
from eventmill.backends.postgres.sql import statements
from eventmill.backends.postgres.values import Value
from eventmill.core import fork
from eventmill.core.errors import BackendError
from eventmill.core.rows import Row

ANSWER = 5.0
"""Seconds to wait for the answer to a short question before the connection counts as dead."""


class Reader:
    """Questions of many tasks share the connection; what breaks under one is asked again, once."""

    def __init__(self, address: Address) -> None:
        self.address = address
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
            return self._pipeline

    async def fetch(self, name: str, values: Sequence[Value] = (), *, condition: bytes | None = None) -> list[Row]:
        """The rows of one of eventmill's statements. condition: what stands for its `{condition}`."""
        sql = self.sql[name] if condition is None else self.sql[name].replace(b"{condition}", condition)
        for attempt in (1, 2):
            pipeline = await self.connect()
            try:
                async with asyncio.timeout(ANSWER):
                    return await pipeline.fetch(sql, values)
            except TimeoutError:
                pipeline.abandon(faults.ConnectionLost(f"{self.address}: no answer within {ANSWER:g} s"))
                if attempt == 2:
                    raise faults.ConnectionLost(f"{self.address}: no answer within {ANSWER:g} s") from None
            except faults.ConnectionLost:
                if attempt == 2:
                    raise
            except psycopg.Error as error:
                if getattr(error, "sqlstate", None) in faults.AGAIN and attempt == 1:
                    pipeline.forget_prepared()
                    continue
                if faults.environmental(error) and attempt == 1:
                    continue
                raise faults.translated(error, str(self.address)) from error
        raise AssertionError("unreachable")

    async def close(self) -> None:
        self._closed = True
        if self._pipeline is not None:
            self._pipeline.close()


def _noted() -> None:
    """The next question finds the connection closed, and makes another."""
