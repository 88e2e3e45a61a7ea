"""A connection that is made when it is needed, and made again when it has broken."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from eventmill.backends.postgres.address import Address
from eventmill.backends.postgres.connection import open_pipeline
from eventmill.backends.postgres.pipeline import Pipeline
from eventmill.core import fork
from eventmill.core.errors import BackendError


class Line:
    """What stands on it says what to do when it is there (`_arrived`), broke (`_broke`), or cannot be had (`_stayed_away`)."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.pipeline: Pipeline | None = None
        self._loop = asyncio.get_running_loop()
        self._fork = fork.count
        self._connecting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def _arrived(self) -> None:
        raise NotImplementedError

    def _broke(self) -> None:
        raise NotImplementedError

    def _stayed_away(self, error: Exception) -> None:
        raise NotImplementedError

    def _refuse_if_unusable(self) -> None:
        if self._closed:
            raise BackendError(f"{self.address} is closed")
        if self._fork != fork.count:
            raise BackendError(f"{self.address} was opened before a fork: open the App in the process that uses it")

    def _lost(self) -> None:
        self.pipeline = None
        self._broke()

    def _connect(self) -> None:
        """Make the connection, unless that is being done."""
        if self._connecting is None or self._connecting.done():
            self._connecting = self._spawn(self._try())

    async def _try(self) -> None:
        try:
            self.pipeline = await open_pipeline(self.address, self.address.patience, self._lost)
        except Exception as error:
            self._stayed_away(error)
        else:
            self._arrived()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _hang_up(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self.pipeline is not None:
            self.pipeline.close()
