"""Subscribing to a log: what every backend that is one has in common."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Generator, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from eventmill.core.message import Partition
from eventmill.core.reading import Page, Pending, Types

if TYPE_CHECKING:
    from eventmill.core.capabilities import Log


T = TypeVar("T")


class Ready(Generic[T]):
    """Awaited, it has its result at once."""

    def __init__(self, result: T) -> None:
        self._result = result

    def __await__(self) -> Generator[None, None, T]:
        return self._result
        yield


class Nothing(Ready[None]):
    """Awaited, it has nothing to wait for."""

    def __init__(self) -> None:
        super().__init__(None)


class LogFeed:
    """A group's reading of a log: positions are the log's own, and nothing needs to be acknowledged."""

    durable_positions = True

    def __init__(self, log: Log, group: str, types: Types | None) -> None:
        self._log = log
        self._group = group
        self._types = types

    def read(self, after: Mapping[Partition, int], *, limit: int, max_bytes: int = 16 << 20) -> Awaitable[Page]:
        return self._log.read(after, limit=limit, max_bytes=max_bytes, types=self._types)

    def changed(self, seen: int, timeout: float) -> Awaitable[int]:
        return self._log.changed(seen, timeout)

    def acknowledge(self, partition: Partition, positions: Collection[int]) -> None:
        """A cursor says it all."""

    def report(self, after: Mapping[Partition, int]) -> Awaitable[None]:
        return self._log.report(self._group, after)

    def release(self, partitions: Collection[Partition]) -> Awaitable[None]:
        return Nothing()

    def close(self) -> Awaitable[None]:
        return Nothing()


class LogSubscriber:
    """The part of `Subscriber` that follows from being a `Log`."""

    def admit(self: Log, group: str, types: Types | None, partitions: Collection[Partition]) -> Awaitable[None]:
        return Nothing()

    def subscribe(self: Log, group: str, types: Types | None) -> LogFeed:
        return LogFeed(self, group, types)

    def backlog(self: Log, group: str, after: Mapping[Partition, int], types: Types | None) -> Awaitable[Pending]:
        return self.pending(after, types)

    def redelivery(self: Log, topics: Collection[str]) -> Awaitable[Mapping[str, float]]:
        return Ready({})

    def dismiss(self: Log, group: str) -> Awaitable[None]:
        return self.report(group, {})
