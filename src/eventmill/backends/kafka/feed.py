"""What one member of a group is handed: its own consumer's buffer."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping

from eventmill.backends.kafka.reader import Reader
from eventmill.core.feed import Nothing
from eventmill.core.message import Partition
from eventmill.core.reading import Page


class KafkaFeed:
    """Reads the partitions whose leases the member holds, and shows the broker how far the group has come."""

    durable_positions = True

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def read(self, after: Mapping[Partition, int], *, limit: int, max_bytes: int = 16 << 20) -> Page:
        return self._reader.read(after, limit=limit, max_bytes=max_bytes)

    def changed(self, seen: int, timeout: float) -> Awaitable[int]:
        return self._reader.changed(seen, timeout)

    def acknowledge(self, partition: Partition, positions: Collection[int]) -> None:
        """A cursor says it all."""

    def report(self, after: Mapping[Partition, int]) -> Awaitable[None]:
        """For people and lag tools alone: nobody waits for it, and what the broker does not take now it is told later."""
        self._reader.show(after)
        return Nothing()

    def release(self, partitions: Collection[Partition]) -> Awaitable[None]:
        return Nothing()

    def close(self) -> Awaitable[None]:
        return self._reader.close()
