"""Killing and pausing worker processes at random, by seed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Sequence

SETTLED = 0.9
"""Seconds after its start from which a worker counts as working."""

ENOUGH = 3
"""Kills without which even the shortest trial would prove little."""

PAUSED = 1.6
"""How long a worker is stopped, in leases: it wakes when others have long taken over."""


class Chaos:
    """Strikes about twice a second: mostly SIGKILL, sometimes SIGSTOP past the lease and SIGCONT.

    Where there are several workers, one other is left at work as a rule; at most one is paused at a
    time. pids: the live workers, who are somebody else's to restart. lease: seconds. `enough` is set once a few were killed.
    """

    def __init__(self, seed: int, pids: Callable[[], Sequence[int]], lease: float) -> None:
        self.kills = 0
        self.pauses = 0
        self.enough = asyncio.Event()
        self._random = random.Random(f"chaos {seed}")  # noqa: S311 - repeatable is the point
        self._pids = pids
        self._lease = lease
        self._since: dict[int, float] = {}
        self._paused: dict[int, float] = {}
        self._killed: set[int] = set()

    async def run(self) -> None:
        """Strike until cancelled; then wake whoever is paused."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._random.uniform(0.2, 0.7)
        overdue = due + 0.5
        try:
            while True:
                await asyncio.sleep(0.05)
                now = loop.time()
                self._look(now)
                if now >= due and self._strike(now, any_victim=now >= overdue):
                    due = now + self._random.uniform(0.2, 0.7)
                    overdue = due + 0.1
        finally:
            for pid in list(self._paused):
                self._wake(pid)

    def _look(self, now: float) -> None:
        """Note newcomers, forget the dead, wake those who were paused for long enough."""
        present = set(self._pids())
        self._killed &= present  # a killed one stays on the list until its end was noticed
        live = present - self._killed
        self._since = {pid: self._since.get(pid, now) for pid in live}
        for pid, until in list(self._paused.items()):
            if pid not in live:
                del self._paused[pid]
            elif now >= until:
                self._wake(pid)

    def _strike(self, now: float, *, any_victim: bool) -> bool:
        awake = sorted(pid for pid in self._since if pid not in self._paused)
        working = [pid for pid in awake if now - self._since[pid] >= SETTLED]
        victims = working
        if len(working) < min(2, len(awake)):
            if not any_victim:
                return False
            # Newcomers mostly, so that the one at work gets something done.
            newcomers = [pid for pid in awake if pid not in working]
            victims = working if working and self._random.random() < 0.3 else newcomers
        if not victims:
            return False
        victim = self._random.choice(victims)
        # A lone worker that is paused would only make everything wait: it is killed instead.
        if len(working) > 1 and not self._paused and self._random.random() < 0.3:
            return self._pause(victim, now)
        return self._kill(victim)

    def _kill(self, pid: int) -> bool:
        if not _send(pid, signal.SIGKILL):
            return False
        self.kills += 1
        if self.kills >= ENOUGH:
            self.enough.set()
        self._killed.add(pid)
        self._paused.pop(pid, None)
        del self._since[pid]
        return True

    def _pause(self, pid: int, now: float) -> bool:
        if not _send(pid, signal.SIGSTOP):
            return False
        self.pauses += 1
        self._paused[pid] = now + self._lease * PAUSED
        return True

    def _wake(self, pid: int) -> None:
        del self._paused[pid]
        _send(pid, signal.SIGCONT)


def _send(pid: int, number: signal.Signals) -> bool:
    """False where the process ended a moment ago."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
