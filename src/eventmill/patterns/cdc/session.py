"""One holder's work on a capture: stream in, messages and progress out, in one commit each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from eventmill.core.capabilities import Store
from eventmill.core.changes import Entry, Shape, Source, Stream
from eventmill.core.claims import Cursor, Fence
from eventmill.core.clock import Clock
from eventmill.core.crash import point
from eventmill.core.message import Message
from eventmill.patterns.cdc.copier import Copier
from eventmill.patterns.cdc.messages import Translator
from eventmill.patterns.cdc.progress import (
    Progress,
    Shapes,
    progress_key,
    read_progress,
    read_shapes,
    shapes_key,
    write,
)
from eventmill.patterns.cdc.teller import Teller

BATCH = 2_000
"""Entries of a commit, about."""

IDLE = 1.0
"""Seconds to wait for the stream before looking around."""

LINGER, FEW = 0.005, 200
"""Seconds from one commit to the next while small transactions follow one another, of fewer entries than these: each costs
a flush of the disk, which may be the source's, too. One that comes after a pause is committed at once."""

QUIET = 10.0
"""Seconds after which a position that moved past nothing of ours is committed, so that the source may let go of its log."""


@dataclass(frozen=True)
class Loaded:
    """What the store knows of a capture."""

    progress: Progress
    version: int
    shapes: dict[str, Shape]


async def load(store: Store, capture: str) -> Loaded | None:
    """The stored progress, or None where the capture was never initialised."""
    async with store.transaction() as tx:
        progress = await tx.get(progress_key(capture))
        shapes = await tx.get(shapes_key(capture))
    if progress is None or shapes is None:
        return None
    return Loaded(read_progress(progress.data, capture), progress.version, read_shapes(shapes.data, capture))


class Session:
    """Runs until stopped, or until it fails: then the next one goes on from what is committed."""

    def __init__(
        self,
        capture: str,
        loaded: Loaded,
        *,
        source: Source,
        stream: Stream,
        store: Store,
        translator: Translator,
        claim: Cursor,
        fence: Fence,
        clock: Clock,
        new_mark: Callable[[], str],
    ) -> None:
        self._capture = capture
        self._stream = stream
        self._store = store
        self._claim = claim
        self._fence = fence
        self._clock = clock
        self._version = loaded.version
        self._teller = Teller(translator, loaded.progress, dict(loaded.shapes), source.values)
        self.copier = Copier(source, capture, self._teller, clock, new_mark)
        self._commit: asyncio.Task[None] | None = None
        self._committed_at = clock.now()
        self.told = 0
        """Messages committed by this session."""

    @property
    def progress(self) -> Progress:
        return self._teller.progress

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The tables as the stream tells them now."""
        return self._teller.shapes

    async def run(self, stopped: asyncio.Event) -> None:
        copying = asyncio.create_task(self.copier.run(), name=f"{self._capture}: snapshot")
        try:
            while not stopped.is_set():
                for task in (copying, self._commit):
                    if task is not None and task.done():
                        task.result()
                entries = await self._stream.read(BATCH, IDLE)
                await self._tell(entries)
                if 0 < len(entries) < FEW and not self.progress.copying:
                    await self._clock.sleep(max(0.0, self._committed_at + LINGER - self._clock.now()))
            if self._teller.moved:
                await self._store_told(self._clock.now())
            if self._commit is not None:
                await self._commit
        finally:
            copying.cancel()
            await asyncio.gather(copying, *filter(None, [self._commit]), return_exceptions=True)

    async def _tell(self, entries: Sequence[Entry]) -> None:
        now = self._clock.now()
        for entry in entries:
            await self._teller.tell(entry, int(now * 1_000_000))
        teller = self._teller
        if not teller.moved:
            return
        urgent = teller.messages or teller.copied_all or teller.progress.copying
        if not urgent and now - self._committed_at < QUIET:
            return
        await self._store_told(now)

    async def _store_told(self, now: float) -> None:
        """Commit what was told, while the next entries are read; never two commits at a time."""
        if self._commit is not None:
            await self._commit
            self._commit = None
        teller, progress = self._teller, self._teller.progress
        progress.at = int(now * 1000)
        progress.recent = teller.recent.transactions if progress.copying else []
        if not progress.copying:
            teller.recent.clear()
        shapes = write(Shapes(teller.shapes)) if teller.reshaped else None
        messages = teller.take_messages()
        position = progress.position
        self._committed_at = now
        self._commit = asyncio.create_task(self._write(messages, write(progress), shapes, position))
        await asyncio.sleep(0)  # so that it begins before the next entries are read

    async def _write(self, messages: list[Message], progress: bytes, shapes: bytes | None, position: int) -> None:
        unit = self._store.unit(self._claim, self._fence)
        try:
            if messages:
                unit.append(messages)
            unit.put(progress_key(self._capture), progress, expected=self._version)
            if shapes is not None:
                unit.put(shapes_key(self._capture), shapes, expected=None)
            point("cdc.commit.before")
            await (await unit.finish())
        except BaseException:
            await unit.discard()
            raise
        self._version += 1
        self.told += len(messages)
        point("cdc.commit.after")
        self._stream.confirm(position)
