"""What one member of a group is handed: its own consumer's buffer."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping

from eventmill.backends.kafka.cluster import Cluster
from eventmill.backends.kafka.failures import log
from eventmill.backends.kafka.reader import Reader
from eventmill.core.errors import BackendError
from eventmill.core.feed import Nothing
from eventmill.core.message import Partition
from eventmill.core.reading import Page


class KafkaFeed:
    """Reads the partitions whose leases the member holds, and shows the broker how far the group has come."""

    durable_positions = True

    def __init__(self, cluster: Cluster, reader: Reader, group: str) -> None:
        self._cluster = cluster
        self._reader = reader
        self._group = group
        self._shown: dict[Partition, int] = {}

    async def read(self, after: Mapping[Partition, int], *, limit: int, max_bytes: int = 16 << 20) -> Page:
        return self._reader.read(after, limit=limit, max_bytes=max_bytes)

    def changed(self, seen: int, timeout: float) -> Awaitable[int]:
        return self._reader.changed(seen, timeout)

    def acknowledge(self, partition: Partition, positions: Collection[int]) -> None:
        """A cursor says it all."""

    async def report(self, after: Mapping[Partition, int]) -> None:
        """For people and lag tools alone: a broker that does not take it now is told the next time."""
        news = {partition: at for partition, at in after.items() if self._shown.get(partition) != at}
        if not news:
            return
        try:
            await self._cluster.show(self._group, news)
        except BackendError as error:
            log.info("%s", error)
        else:
            self._shown.update(news)

    def release(self, partitions: Collection[Partition]) -> Awaitable[None]:
        for partition in partitions:
            self._shown.pop(partition, None)
        return Nothing()

    def close(self) -> Awaitable[None]:
        return self._reader.close()
