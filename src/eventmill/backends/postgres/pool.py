"""Connections for transactions of their own: the callers', and the store's longer questions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eventmill.backends.postgres.address import Address
from eventmill.backends.postgres.connection import open_pipeline
from eventmill.backends.postgres.pipeline import Pipeline
from eventmill.core import fork
from eventmill.core.errors import BackendError

PING = 5.0
"""Seconds a connection may have lain idle before it is asked whether it is still there."""

ANSWER = 3.0


class Pool:
    """At most so many connections at a time; whoever comes later waits. They are made when they are needed."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: list[Pipeline] = []
        self._room = asyncio.Semaphore(address.pool)
        self._fork = fork.count
        self._closed = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Pipeline]:
        """A connection in no transaction. It is closed, not given back, where it is left in one."""
        pipeline = await self.take()
        try:
            yield pipeline
        except BaseException:
            self.give_back(pipeline, clean=False)
            raise
        self.give_back(pipeline, clean=True)

    async def take(self) -> Pipeline:
        if self._closed:
            raise BackendError(f"{self._address} is closed")
        if self._fork != fork.count:
            raise BackendError(f"{self._address} was opened before a fork: open the App in the process that uses it")
        await self._room.acquire()
        try:
            while self._idle:
                pipeline = self._idle.pop()
                if not pipeline.ended() and await self._alive(pipeline):
                    return pipeline
            return await open_pipeline(self._address, self._address.patience, _noted)
        except BaseException:
            self._room.release()
            raise

    async def _alive(self, pipeline: Pipeline) -> bool:
        if asyncio.get_running_loop().time() - pipeline.heard < PING:
            return True
        try:
            async with asyncio.timeout(ANSWER):
                await pipeline.fetch(b"SELECT 1")
        except (BackendError, TimeoutError):
            pipeline.close()
            return False
        return True

    def give_back(self, pipeline: Pipeline, *, clean: bool) -> None:
        self._room.release()
        if clean and not pipeline.closed and not pipeline.busy and not self._closed:
            self._idle.append(pipeline)
        else:
            pipeline.close()

    async def close(self) -> None:
        self._closed = True
        for pipeline in self._idle:
            pipeline.close()
        self._idle.clear()


def _noted() -> None:
    """Whoever works on the connection is told by what was outstanding on it."""
