"""The log: read from any place, as far as the broker has it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from heapq import merge

from eventmill.backends.kafka.cluster import Cluster
from eventmill.backends.kafka.reader import Reader
from eventmill.core.errors import BackendUnavailableError
from eventmill.core.message import Partition, Recorded
from eventmill.core.reading import Page, Pending, Types

PATIENCE = 20.0
"""Seconds without anything new, while the broker has more, after which a read gives up."""

LOOK = 0.1
"""Seconds between two looks at the ends of all partitions, while somebody waits for a change."""

COUNTED = 10_000
"""Messages looked through for their types, where only some types are counted; of the rest each is taken to match."""

DATED = 2.0
"""Seconds that the time of the oldest message may take to find out."""


class Replay:
    """Reads at any place, one reader at a time, over a consumer that stays open."""

    def __init__(self, cluster: Cluster, reader: Reader) -> None:
        self._cluster = cluster
        self._reader = reader
        self._turn = asyncio.Lock()

    async def read(self, after: Mapping[Partition, int], limit: int, max_bytes: int, types: Types | None) -> Page:
        """Full pages, unless the end comes first: everything up to where the log ended when this began."""
        if not after or limit < 1:
            return Page((), {})
        ends = await self._cluster.offsets(after)
        at = {partition: position for partition, position in after.items() if position < ends[partition]}
        if not at:
            return Page((), {})
        async with self._turn:
            found: list[Recorded] = []
            moved: dict[Partition, int] = {}
            size = 0
            seen = -1
            while any(at[partition] < ends[partition] for partition in at) and len(found) < limit and size < max_bytes:
                page = self._reader.read(at, limit=limit - len(found), max_bytes=max_bytes - size, types=types)
                if not page.after:
                    seen = await self._more(seen)
                    continue
                found += page.messages
                size += sum(len(record.message.data) for record in page.messages)
                moved.update(page.after)
                at.update(page.after)
        return Page(_by_time(found), moved)

    async def _more(self, seen: int) -> int:
        now = await self._reader.changed(seen, PATIENCE)
        if now == seen:
            raise BackendUnavailableError(f"{self._reader} has had nothing for {PATIENCE:g} s, though there is more")
        return now

    async def pending(self, after: Mapping[Partition, int], types: Types | None) -> Pending:
        """By offsets where all types count, which may be too many where offsets are left out; see COUNTED."""
        first, last = await self._cluster.offsets(after, first=True), await self._cluster.offsets(after)
        at = {part: max(position, first[part]) for part, position in after.items()}
        waiting = {part: position for part, position in at.items() if position < last[part]}
        total = sum(last[part] - position for part, position in waiting.items())
        if not total:
            return Pending(0, None)
        if types is None:
            return Pending(total, await self._oldest(waiting))
        return await self._count(waiting, total, types)

    async def _count(self, waiting: Mapping[Partition, int], total: int, types: Types) -> Pending:
        found, oldest, looked, at = 0, None, 0, dict(waiting)
        while looked < min(total, COUNTED):
            page = await self.read(at, 1_000, 4 << 20, None)
            if not page.after:
                break
            for record in page.messages:
                if types.accepts(record.message.type):
                    found += 1
                    oldest = record.recorded_at if oldest is None else min(oldest, record.recorded_at)
            looked += sum(position - at[part] for part, position in page.after.items())
            at.update(page.after)
        return Pending(found + max(0, total - looked), oldest)

    async def _oldest(self, waiting: Mapping[Partition, int]) -> int | None:
        """The earliest of the partitions' first messages, so far as they come in time."""
        left = dict(waiting)
        oldest: int | None = None
        seen = -1
        async with self._turn:
            try:
                async with asyncio.timeout(DATED):
                    while left:
                        page = self._reader.read(left, limit=256, max_bytes=4 << 20)
                        left.update(page.after)
                        for record in page.messages:
                            if left.pop(record.partition, None) is not None:
                                oldest = record.recorded_at if oldest is None else min(oldest, record.recorded_at)
                        if not page.after:
                            seen = await self._more(seen)
            except TimeoutError:
                return oldest
        return oldest

    async def changed(self, seen: int, timeout: float) -> int:
        """The counter is the sum of all ends: the same for every process."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while True:
            now = sum((await self._cluster.offsets(await self._cluster.partitions())).values())
            if now != seen or loop.time() >= until:
                return now
            await asyncio.sleep(min(LOOK, max(0.0, until - loop.time())))

    async def close(self) -> None:
        await self._reader.close()


def _by_time(found: Sequence[Recorded]) -> Sequence[Recorded]:
    """Messages of one partition stay in their order, whatever their times."""
    parts: dict[Partition, list[Recorded]] = {}
    for record in found:
        parts.setdefault(record.partition, []).append(record)
    if len(parts) == 1:
        return found
    return list(merge(*(parts[part] for part in sorted(parts)), key=lambda record: record.recorded_at))
