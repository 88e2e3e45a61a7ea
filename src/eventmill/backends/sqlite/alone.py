"""When a caller that nobody joins need not wait to be joined."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import Any

ROW = 3
"""So many commits in a row with one caller each, and the next one is made where its caller stands."""

STRETCH = 0.001
"""Seconds for which such callers keep the event loop to themselves before all others have their turn."""


class Alone:
    """Tells whether a commit may be made at once, on the spot, rather than when all who are ready have had their turn.

    That is for a caller who writes, waits, and writes again: nobody joins, and two rounds of the event loop are saved.
    Somebody who awaits what is durable already goes on without giving way to others, which is why it ends after a while.
    """

    __slots__ = ("_loop", "_row", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._row = 0
        self._until: float | None = None

    def committed(self, callers: int) -> None:
        """So many took part in a commit."""
        self._row = self._row + 1 if callers == 1 else 0

    def __bool__(self) -> bool:
        if self._row < ROW:
            return False
        now = monotonic()
        if self._until is None:
            self._until = now + STRETCH
            self._loop.call_soon(self._give_way)
        return now < self._until

    def _give_way(self) -> None:
        self._until = None


def run_through(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that is known not to wait for anything."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise RuntimeError(f"{work} waited where it must not")
