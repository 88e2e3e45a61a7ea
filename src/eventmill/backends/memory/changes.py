"""A counter of changes that one can wait on."""

from __future__ import annotations

import asyncio

from eventmill.core.clock import Clock


class Changes:
    """Counts up with each change; all who wait are woken."""

    def __init__(self) -> None:
        self._count = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def note(self) -> None:
        self._count += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def beyond(self, seen: int, timeout: float, clock: Clock) -> int:
        """The count, as soon as it is not `seen`, or when `timeout` seconds of the clock have passed."""
        if self._count != seen:
            return self._count
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        alarm = asyncio.ensure_future(clock.sleep(timeout))
        try:
            await asyncio.wait({waiter, alarm}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiters.discard(waiter)
            alarm.cancel()
        return self._count
