"""Noticing that somebody has committed messages."""

from __future__ import annotations

import asyncio
import logging

from eventmill.backends.postgres.tail import Tail
from eventmill.backends.sql.waiters import Waiters
from eventmill.core.errors import BackendError

log = logging.getLogger("eventmill")

FASTEST = 0.003
SLOWEST = 0.05
EASE = 20
"""The log is looked at every idle/EASE seconds, within these two bounds."""

AWAY = 0.5
"""Seconds between looks while the server is away."""


class Watcher:
    """Wakes whoever waits for messages: told by this process's writers and by others' announcements, and looking by
    itself besides, for what nobody announces (`outbox.add`) or a pooler keeps back."""

    def __init__(self) -> None:
        self._tail: Tail | None = None
        self._waiters = Waiters()
        self._poll: asyncio.Task[None] | None = None
        self._look = asyncio.Event()

    @property
    def version(self) -> int:
        return self._waiters.version

    def watch(self, tail: Tail) -> None:
        self._tail = tail

    def committed(self) -> None:
        """Somebody has committed: look now rather than at the next time."""
        self._look.set()

    def advanced(self) -> None:
        """The end of what may be read has moved."""
        self._waiters.wake()

    async def changed(self, seen: int, timeout: float) -> int:
        if seen != self.version:
            return self.version
        if self._poll is None or self._poll.done():
            # Its first step comes when the caller waits already.
            self._poll = asyncio.get_running_loop().create_task(self._watch())
        return await self._waiters.beyond(seen, timeout)

    async def _watch(self) -> None:
        assert self._tail is not None
        loop = asyncio.get_running_loop()
        active = loop.time()
        idle = 0
        while idle < 100:
            idle = 0 if self._waiters else idle + 1
            version = self.version
            pause = 0.0
            try:
                await self._tail.look()
            except BackendError as error:
                log.info("waiting for the server: %s", error)
                pause = AWAY
                self.advanced()  # whoever wakes for it meets the error where it can be told
            if self.version != version or self._tail.waiting:
                active = loop.time()
            pause = pause or min(max((loop.time() - active) / EASE, FASTEST), SLOWEST)
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        if self._look.is_set():
            self._look.clear()
            return
        alarm = asyncio.get_running_loop().call_later(seconds, self._look.set)
        await self._look.wait()
        alarm.cancel()
        self._look.clear()

    async def close(self) -> None:
        self.advanced()
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.wait([self._poll])
