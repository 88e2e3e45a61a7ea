"""What a member of a group is handed: the messages of the queues whose partitions it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from eventmill.backends.rabbitmq import content
from eventmill.backends.rabbitmq.channel import Delivered
from eventmill.backends.rabbitmq.closing import ClosedError
from eventmill.backends.rabbitmq.link import Link
from eventmill.backends.rabbitmq.names import Names
from eventmill.backends.rabbitmq.reading import Reading
from eventmill.backends.rabbitmq.topology import Topology
from eventmill.core.clock import Clock
from eventmill.core.errors import BackendUnavailableError, MessageError
from eventmill.core.message import Partition, Recorded
from eventmill.core.reading import Page, Types


class QueueFeed:
    """Positions count what was handed out, from where each partition was asked for first.

    When the server ends one of its readings, whatever was handed out will come again: the feed is over,
    and says so at the next `read`. Its member begins anew with another, from the store's state.
    """

    durable_positions = False

    def __init__(
        self, group: str, types: Types | None, *,
        link: Link, topology: Topology, names: Names, prefetch: int, clock: Clock,
    ) -> None:  # fmt: skip
        self._group = group
        self._types = types
        self._link = link
        self._topology = topology
        self._names = names
        self._prefetch = prefetch
        self._clock = clock
        self._readings: dict[Partition, Reading] = {}
        self._over: ClosedError | None = None
        self._changes = 0
        self._changed = asyncio.Event()

    async def read(self, after: Mapping[Partition, int], *, limit: int, max_bytes: int = 16 << 20) -> Page:
        if self._over is not None:
            raise BackendUnavailableError(f"the queues of {self._group} are to be read anew: {self._over}")
        ready = []
        for partition, position in after.items():
            reading = self._readings.get(partition)
            if reading is None:
                self._readings[partition] = self._reading(partition, position)
            elif reading.waiting:
                ready.append(reading)
        if not ready:
            return Page((), {})
        return self._page(ready, limit, max_bytes)

    def _reading(self, partition: Partition, position: int) -> Reading:
        return Reading(
            partition,
            position,
            link=self._link,
            queue=self._names.queue(self._group, partition),
            prefetch=self._prefetch,
            arrived=self._note,
            lost=self._lose,
        )

    def _page(self, ready: Sequence[Reading], limit: int, max_bytes: int) -> Page:
        """A fair share of each, then more of those that have more."""
        found: list[Recorded] = []
        moved: dict[Partition, int] = {}
        now = self._clock.now()
        left, room = limit, max_bytes
        while ready and left > 0 and room > 0:
            share = max(1, left // len(ready))
            for reading in ready:
                for _ in range(share):
                    if not reading.waiting or left <= 0 or room <= 0:
                        break
                    delivered = reading.take()
                    left -= 1
                    room -= len(delivered.body) + len(delivered.properties)
                    recorded = self._recorded(delivered, reading, now)
                    moved[reading.partition] = reading.position
                    if recorded is None:
                        reading.acknowledge((reading.position,))
                    else:
                        found.append(recorded)
            ready = [reading for reading in ready if reading.waiting]
        return Page(found, moved)

    def _recorded(self, delivered: Delivered, reading: Reading, now: float) -> Recorded | None:
        """None for a message of a type that is not wanted: another version of the group has asked for it."""
        partition = reading.partition
        arrived = int(now * 1_000_000)
        flaw = None
        try:
            message = content.read(delivered, partition.topic, arrived)
        except MessageError as error:
            message, flaw = content.unreadable(delivered, partition.topic, arrived), f"{type(error).__name__}: {error}"
        if flaw is None and self._types is not None and not self._types.accepts(message.type):
            return None
        return Recorded(reading.position, partition, arrived // 1000, message, flaw)

    def _note(self) -> None:
        self._changes += 1
        self._changed.set()

    def _lose(self, error: ClosedError) -> None:
        if self._over is None:
            self._over = error
            # A deleted queue is declared again before the next feed reads it.
            self._topology.forget(self._group)
        self._note()

    async def changed(self, seen: int, timeout: float) -> int:
        if seen == self._changes:
            self._changed.clear()
            with suppress(TimeoutError):  # nothing came: that is an answer, too
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
        return self._changes

    def acknowledge(self, partition: Partition, positions: Collection[int]) -> None:
        reading = self._readings.get(partition)
        if reading is not None and self._over is None:
            reading.acknowledge(positions)

    async def report(self, after: Mapping[Partition, int]) -> None:
        """The queue knows by what was acknowledged."""

    async def release(self, partitions: Collection[Partition]) -> None:
        await self._end([self._readings.pop(part) for part in partitions if part in self._readings])

    async def close(self) -> None:
        readings, self._readings = list(self._readings.values()), {}
        await self._end(readings)

    async def _end(self, readings: Sequence[Reading]) -> None:
        if readings:
            await asyncio.gather(*(reading.close() for reading in readings))
