"""Who waits for the next commit."""

from __future__ import annotations

import asyncio


class Waiters:
    """A counter of changes that one can wait on."""

    def __init__(self) -> None:
        self.version = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def wake(self) -> None:
        """Something has changed, or whoever waits is to meet an error where it can be told."""
        self.version += 1
        for waiter in self._waiting:
            _set(waiter)
        self._waiting.clear()

    async def beyond(self, seen: int, timeout: float) -> int:
        """The counter, as soon as it has left `seen` behind or the time (seconds) is up."""
        if seen != self.version:
            return self.version
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.add(waiter)
        alarm = loop.call_later(timeout, _set, waiter)
        try:
            await waiter
        finally:
            alarm.cancel()
            self._waiting.discard(waiter)
        return self.version


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
