"""Noticing that some process has committed to the file."""

from __future__ import annotations

import asyncio
import sqlite3

from eventmill.backends.sql.waiters import Waiters

FASTEST = 0.002
SLOWEST = 0.01
COALESCE = 0.001
EASE = 20
"""The file is looked at every idle/EASE seconds, within these two bounds."""


class Watcher:
    """Counts commits seen: told of those of this process, and asking SQLite about the others.

    `PRAGMA data_version` costs two microseconds and no lock worth the name, so that asking every
    other millisecond while something goes on, and every tenth when nothing does, wakes a consumer in
    milliseconds for a fraction of a percent of a core.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._seen = self._data_version()
        self._waiters = Waiters()
        self._poll: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def version(self) -> int:
        return self._waiters.version

    def _data_version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def notify(self) -> None:
        """This process has committed. Commits that follow each other closely wake the readers once."""
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(COALESCE, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._look()
        self._waiters.wake()

    def _look(self) -> bool:
        """Whether anybody has committed since the last look."""
        try:
            version = self._data_version()
        except sqlite3.Error:
            version = -1  # whoever wakes for it meets the error where it can be told
        changed, self._seen = version != self._seen, version
        return changed

    async def changed(self, seen: int, timeout: float) -> int:
        if seen != self.version:
            return self.version
        if self._poll is None or self._poll.done():
            # Its first step comes when the caller waits already.
            self._poll = asyncio.get_running_loop().create_task(self._watch())
        return await self._waiters.beyond(seen, timeout)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        active = loop.time()
        while self._waiters:
            if self._alarm is None and self._look():  # else they are about to be woken
                active = loop.time()
                self._waiters.wake()
            await asyncio.sleep(min(max((loop.time() - active) / EASE, FASTEST), SLOWEST))

    async def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._waiters.wake()
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.wait([self._poll])
