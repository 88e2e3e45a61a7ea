"""Apache Kafka as a whole: Publisher, Subscriber and Log; a service's own truth is kept elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from eventmill.backends.kafka.cluster import Cluster
from eventmill.backends.kafka.feed import KafkaFeed
from eventmill.backends.kafka.log import Replay
from eventmill.backends.kafka.publishing import Publishing
from eventmill.backends.kafka.reader import Reader
from eventmill.backends.kafka.settings import Settings
from eventmill.backends.url import Url
from eventmill.core.capabilities import Capability
from eventmill.core.errors import BackendUnavailableError
from eventmill.core.feed import LogSubscriber
from eventmill.core.message import Message, Partition
from eventmill.core.reading import Page, Pending, Types


class _Open(NamedTuple):
    cluster: Cluster
    publishing: Publishing
    replay: Replay


class KafkaBackend(LogSubscriber):
    """Topics of one Kafka cluster. Open it with `async with`; what it promises is in docs/backends.md.

    A position is the offset plus one, so that 0 stands before the first message.
    """

    offers = frozenset({Capability.PUBLISHER, Capability.SUBSCRIBER, Capability.LOG})

    def __init__(self, url: Url) -> None:
        self._url = url
        self._settings = Settings.of(url)
        self._opened: _Open | None = None

    @classmethod
    def from_url(cls, url: Url, clock: object, *, readonly: bool = False) -> Self:
        """`kafka://user:password@host:9092,host:9092`.

        Options: `security`, `mechanism`, `cafile`, `certfile`, `keyfile`, `prefix`, `replication`, `compression`,
        `connect_timeout`, `publish_timeout`. Times are the broker's and the network's: no clock is asked. `readonly` changes
        nothing: opening leaves no trace.
        """
        return cls(url)

    def __repr__(self) -> str:
        return str(self._url)

    async def __aenter__(self) -> Self:
        """Raises BackendUnavailableError where no broker answers within `connect_timeout`."""
        where = f"kafka://{self._url.location}"
        cluster = Cluster(self._settings, where)
        try:
            await cluster.reach(self._settings.connect_timeout)
        except BaseException:
            cluster.close()
            raise
        reader = Reader(self._settings, "replay", None, where)
        self._opened = _Open(cluster, Publishing(self._settings, cluster, where), Replay(cluster, reader))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            opened, self._opened = self._opened, None
            await opened.publishing.close()
            await opened.replay.close()
            opened.cluster.close()

    @property
    def _open(self) -> _Open:
        if self._opened is None:
            raise BackendUnavailableError(f"{self!r} is not open: use it in `async with`")
        return self._opened

    async def remove(self) -> None:
        """Delete all topics under the URL's prefix, for good: after a trial. Refused without a prefix."""
        if not self._settings.prefix:
            raise self._url.refusal("only topics under a prefix are removed together; give prefix=")
        await self._open.cluster.remove()

    # Publisher

    async def publish(self, messages: Sequence[Message]) -> Sequence[int]:
        return await self._open.publishing.publish(messages)

    # Subscriber

    async def declare(self, topics: Mapping[str, int]) -> None:
        await self._open.cluster.declare(topics)

    async def topics(self) -> Mapping[str, int]:
        return dict(await self._open.cluster.topics())

    def subscribe(self, group: str, types: Types | None) -> KafkaFeed:  # type: ignore[override]
        where = f"kafka://{self._url.location}"
        return KafkaFeed(Reader(self._settings, group, types, where))

    async def redelivery(self, topics: Collection[str]) -> Mapping[str, float]:
        return await self._open.cluster.kept(topics)

    # Log

    async def read(
        self,
        after: Mapping[Partition, int],
        *,
        limit: int,
        max_bytes: int = 16 << 20,
        types: Types | None = None,
    ) -> Page:
        return await self._open.replay.read(after, limit, max_bytes, types)

    async def end(self) -> Mapping[Partition, int]:
        cluster = self._open.cluster
        partitions = await cluster.partitions()
        first, last = await cluster.offsets(partitions, first=True), await cluster.offsets(partitions)
        return {partition: last[partition] for partition in partitions if last[partition] > first[partition]}

    async def pending(self, after: Mapping[Partition, int], types: Types | None = None) -> Pending:
        return await self._open.replay.pending(after, types)

    async def report(self, group: str, after: Mapping[Partition, int]) -> None:
        if after:
            await self._open.cluster.show(group, after)
        else:
            await self._open.cluster.unshow(group)

    async def trimmed(self, topics: Collection[str]) -> Mapping[str, int]:
        cluster = self._open.cluster
        partitions = [partition for partition in await cluster.partitions() if partition.topic in topics]
        gone: dict[str, int] = {}
        for (topic, _), position in (await cluster.offsets(partitions, first=True)).items():
            if position > 0:
                gone[topic] = max(position, gone.get(topic, 0))
        return gone

    async def changed(self, seen: int, timeout: float) -> int:
        return await self._open.replay.changed(seen, timeout)
