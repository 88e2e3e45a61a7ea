"""The initial snapshot: reads tables chunk by chunk while the stream goes on, and hands the chunks to the teller."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from eventmill.core.changes import Chunk, Shape, Source
from eventmill.core.clock import Clock
from eventmill.core.crash import point
from eventmill.patterns.cdc.teller import Teller
from eventmill.patterns.cdc.window import Window

AHEAD = 2
"""Chunks in memory at a time: one is told while the next is read."""

AIM = 2 << 20
"""Bytes that a chunk should come to in messages: wide rows make for small chunks."""

LOOK = 5.0
"""Seconds between looks at what is visible while the snapshot waits."""

FIRST, LEAST, MOST = 1_000, 100, 5_000
"""Rows of a chunk: of the first, and of those whose rows' size is known."""


class Copier:
    """Copies what the progress says is not copied yet. paused: waits while this is not set."""

    def __init__(self, source: Source, capture: str, teller: Teller, clock: Clock, new_mark: Callable[[], str]) -> None:
        self._source = source
        self._capture = capture
        self._teller = teller
        self._clock = clock
        self._new_mark = new_mark
        self._room = asyncio.Semaphore(AHEAD)
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        teller.copied = self._room.release

    async def run(self) -> None:
        """Returns when every table's last chunk was handed over."""
        for table in list(self._teller.progress.tables):
            if self._teller.progress.tables[table].state != "done":
                await self._copy(table)

    async def _copy(self, table: str) -> None:
        copied = self._teller.progress.tables[table]
        copied.state = "copying"
        copied.since = int(self._clock.now() * 1000)
        copied.before = copied.rows
        after = copied.after
        limit = FIRST
        while True:
            await self._pause(table)
            await self._room.acquire()
            window, chunk = await self._read(table, after, limit)
            mark = self._new_mark()
            self._teller.chunks[mark] = (window, chunk)
            point("cdc.chunk.read")
            await self._source.mark(self._capture, mark)
            point("cdc.chunk.marked")
            if chunk.final:
                return
            after = chunk.last
            limit = _fitting(chunk)

    async def _pause(self, table: str) -> None:
        """While told to wait: the list of what some view might not see yet is kept short nevertheless."""
        while not self.may_go_on.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self.may_go_on.wait()
            chunk = await self._source.chunk(self._capture, self._shape(table), None, 1)
            self._teller.recent.forget(chunk.view)

    async def _read(self, table: str, after: tuple[str, ...] | None, limit: int) -> tuple[Window, Chunk]:
        pause = 0.005
        while True:
            window = Window(table)
            told = self._teller.recent.copy()
            self._teller.windows.append(window)
            chunk = await self._source.chunk(self._capture, self._shape(table), after, limit)
            if told.all_seen_by(chunk.view):
                window.read(chunk)
                return window, chunk
            # A transaction was told that is not visible yet: it will be in a moment.
            self._teller.windows.remove(window)
            await self._clock.sleep(pause)
            pause = min(pause * 2, 0.5)

    def _shape(self, table: str) -> Shape:
        return self._teller.shapes[table]


def _fitting(chunk: Chunk) -> int:
    """How many rows come to about `AIM` bytes, judged by some of those just read."""
    some = chunk.rows[:: max(1, len(chunk.rows) // 20)]
    size = sum(len(str(row)) + 200 for _, row in some) / max(1, len(some))
    return int(min(MOST, max(LEAST, AIM / size)))
