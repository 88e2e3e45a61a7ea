"""Telling other processes that there is something to read: one NOTIFY for all commits of a short while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache

WINDOW = 0.01
"""Seconds in which a process says NOTIFY once at most, however much it commits."""


@cache
def channel(schema: str | None) -> str:
    """The name that is notified and listened to. Two schemas that share a clipped one wake each other for nothing."""
    return f"eventmill.{schema or 'public'}"[:63]


class Announcer:
    """Says it at once where nothing was said for a while, else at the end of the window, once for all until then.

    say: sends one NOTIFY by itself, never within a transaction that appends: it takes a lock that is the whole
    server's until its transaction has ended. Nothing hangs on its arrival: who waits looks by himself as well.
    """

    def __init__(self, say: Callable[[], None]) -> None:
        self.said = 0
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._next = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    def appended(self) -> None:
        """Messages were committed."""
        if self._alarm is None:
            now = self._loop.time()
            if now >= self._next:
                self._speak()
            else:
                self._alarm = self._loop.call_at(self._next, self._speak)

    def _speak(self) -> None:
        self._alarm = None
        self._next = self._loop.time() + WINDOW
        self.said += 1
        self._say()

    def close(self) -> None:
        """Say what is still to be said: whoever waits elsewhere need not wait for its own look."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._speak()
