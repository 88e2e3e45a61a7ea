"""Time, randomness and sleeping come from here, so that a whole system can run under a seed."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from typing import Protocol

from eventmill.core import fork


class Clock(Protocol):
    """Where the time comes from and how one waits for it."""

    def now(self) -> float:
        """Seconds since 1970 UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return when that much of this clock's time has passed."""
        ...


APART = 0.1
"""Seconds that clocks may be apart without a correction: those of well kept machines are, and correcting costs steps."""


class SystemClock:
    """The machine's own clock; where several machines share a server, corrected by that of the server.

    Leases and due moments are compared between machines: two that are further apart than a lease would each take the
    other's work for abandoned.
    """

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        return self.machine() + self._ahead

    def machine(self) -> float:
        """What the machine says. Seconds since 1970 UTC."""
        return time.time()

    def follow(self, server: float, asked: float, answered: float) -> float | None:
        """Take over a server's clock, which said `server` between two moments of this machine's.

        Returns by how much it was corrected now; None where it need not be, or where the answer was too slow to tell.
        """
        ahead = server - (asked + answered) / 2
        unsure = abs(answered - asked) / 2
        if abs(ahead) <= APART + unsure:
            ahead = 0.0
        if abs(ahead - self._ahead) <= APART + unsure:
            return None
        correction, self._ahead = ahead - self._ahead, ahead
        return correction

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that moves only when told to: `await clock.advance(60)` wakes whoever slept that long."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._ticket = 0

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        self._ticket += 1
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, self._ticket, waiter))
        await waiter

    async def advance(self, seconds: float) -> None:
        """Move the time on, waking each sleeper at its own moment and letting it run."""
        target = self._now + seconds
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, waiter = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            if not waiter.done():
                waiter.set_result(None)
            await asyncio.sleep(0)
        self._now = target
        await asyncio.sleep(0)


class Ids:
    """Identifiers that sort by time: UUID version 7 (RFC 9562), monotonic within one instance.

    Randomness is drawn once a millisecond, and counted up from there; a forked child draws anew.
    """

    __slots__ = ("_clock", "_counter", "_fork", "_head", "_last", "_rng")

    def __init__(self, clock: Clock, rng: random.Random | None = None) -> None:
        self._clock = clock
        self._rng = rng or random.SystemRandom()
        self._last = -1
        self._counter = 0
        self._fork = -1
        self._head = ""

    def __call__(self) -> str:
        now = int(self._clock.now() * 1000)
        if now > self._last or self._fork != fork.count:
            # A clock that went back does not matter: the ids stay behind the last one, in order.
            self._last = max(now, self._last)
            self._fork = fork.count
            drawn = self._rng.getrandbits(73)
            self._counter = drawn & 0x7FFFFFFFFFFF  # 47 bits, with one of room to count up
            self._head = (
                f"{self._last >> 16 & 0xFFFFFFFF:08x}-{self._last & 0xFFFF:04x}-"
                f"7{drawn >> 61:03x}-{0x8000 | drawn >> 47 & 0x3FFF:04x}-"
            )
        else:
            self._counter += 1
        return f"{self._head}{self._counter:012x}"
