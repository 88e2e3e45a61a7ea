"""The log: one list of records for each partition, and one counter of positions for all."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import merge
from operator import attrgetter

import msgspec

from eventmill.backends.memory.streams import MemoryStreams
from eventmill.core.errors import ConfigurationError, EncodeError
from eventmill.core.message import Message, Partition, Recorded
from eventmill.core.partition import DEFAULT_PARTITIONS, partition_of
from eventmill.core.reading import Page, Pending, Trimmed, Types
from eventmill.core.stream import Query, Stream

_POSITION = attrgetter("position")


class MemoryLog:
    """What was appended and not trimmed yet."""

    def __init__(self) -> None:
        self.topics: dict[str, int] = {}
        self.ends: dict[Partition, int] = {}
        self.watermarks: dict[str, dict[Partition, int]] = {}
        self._records: dict[Partition, list[Recorded]] = {}
        self.streams = MemoryStreams()
        self._last = 0
        self.horizons: dict[str, int] = {}
        """Topics of which messages were removed, and the position of the last one."""

    def declare(self, topics: Mapping[str, int]) -> None:
        """All of the topics, or none where one is refused."""
        for topic, count in topics.items():
            stored = self.topics.get(topic, count)
            if count < 1:
                raise ConfigurationError(f"topic {topic!r}: partitions={count}; give at least 1")
            if stored != count:
                raise ConfigurationError(
                    f"topic {topic!r} has {stored} partitions, {count} were asked for: "
                    "the count cannot change, because keys would move; use the stored count or another topic"
                )
        self.topics.update(topics)

    @staticmethod
    def check(messages: Sequence[Message]) -> None:
        """Raises EncodeError for a message that no log could store."""
        for message in messages:
            if not isinstance(message.data, bytes):
                raise EncodeError(f"{message.type}: data must be bytes, not {type(message.data).__name__}")
            try:
                msgspec.json.encode(message)
            except (UnicodeEncodeError, TypeError, ValueError) as error:
                raise EncodeError(f"{message.type}: the envelope cannot be stored: {error}") from error

    def append(self, messages: Sequence[Message], now: int) -> list[int]:
        """Their positions. A topic nobody declared gets the default number of partitions. now: milliseconds."""
        return [self._append(message, now) for message in messages]

    def _append(self, message: Message, now: int) -> int:
        count = self.topics.setdefault(message.topic, DEFAULT_PARTITIONS)
        partition = Partition(message.topic, partition_of(message.key, message.id, count))
        if message.key is not None:
            count_of_key = self.streams.version(Stream(message.topic, message.key)) + 1
            # A number that another log gave stays: the message is the same one, only further on its way.
            if message.sequence is None:
                message = msgspec.structs.replace(message, sequence=count_of_key)
        self._last += 1
        record = Recorded(self._last, partition, now, message)
        self._records.setdefault(partition, []).append(record)
        if message.key is not None:
            self.streams.add(Stream(message.topic, message.key), count_of_key, record)
        self.ends[partition] = self._last
        return self._last

    def read(self, after: Mapping[Partition, int], limit: int, max_bytes: int, types: Types | None) -> Page:
        """`after` of the page holds the partitions that were looked through further than before, and only those."""
        found: list[Recorded] = []
        looked: dict[Partition, int] = {}
        size = 0
        for record in self._beyond(after):
            if types is None or types.accepts(record.message.type):
                size += len(record.message.data)
                if len(found) >= limit or (found and size > max_bytes):
                    break
                found.append(record)
            looked[record.partition] = record.position
        else:
            looked = {partition: self._last for partition, position in after.items() if position < self._last}
        return Page(found, looked)

    def read_all(
        self,
        after: int,
        limit: int,
        max_bytes: int,
        types: Types | None,
        topics: Collection[str] | None,
        queries: Sequence[Query] | None,
    ) -> tuple[list[Recorded], int]:
        """In order of positions over all partitions, and how far it was looked through."""
        found: list[Recorded] = []
        size = 0
        looked = after
        for record in self._beyond(dict.fromkeys(self._records, after)):
            message = record.message
            if (
                (types is None or types.accepts(message.type))
                and (topics is None or message.topic in topics)
                and (queries is None or any(query.matches(message) for query in queries))
            ):
                size += len(message.data)
                if len(found) >= limit or (found and size > max_bytes):
                    return found, looked
                found.append(record)
            looked = record.position
        return found, max(after, self._last)

    def latest(self, queries: Sequence[Query], after: int) -> int | None:
        """The last position beyond `after` of an event that one of the queries matches."""
        matching = [
            record.position
            for record in self._beyond(dict.fromkeys(self._records, after))
            if any(query.matches(record.message) for query in queries)
        ]
        return matching[-1] if matching else None

    def report(self, group: str, after: Mapping[Partition, int]) -> None:
        """Watermarks only grow: a late report of an earlier place changes nothing. Saying nothing takes them back."""
        if not after:
            self.watermarks.pop(group, None)
            return
        known = self.watermarks.setdefault(group, {})
        for partition, position in after.items():
            known[partition] = max(position, known.get(partition, 0))

    def pending(self, after: Mapping[Partition, int], types: Types | None) -> Pending:
        waiting = [
            record.recorded_at for record in self._beyond(after) if types is None or types.accepts(record.message.type)
        ]
        return Pending(len(waiting), min(waiting, default=None))

    def trim(
        self,
        topic: str,
        passed: Mapping[str, Mapping[Partition, int]],
        *,
        before: int | None,
        max_bytes: int | None,
        force: bool,
    ) -> Trimmed:
        """passed: how far each group is, in the partitions it reads. before: milliseconds since 1970 UTC."""
        partitions = [Partition(topic, number) for number in range(self.topics.get(topic, 0))]
        records = list(self._beyond(dict.fromkeys(partitions, 0)))
        size = sum(len(record.message.data) for record in records)
        removed = 0
        for record in records:
            old = before is not None and record.recorded_at < before
            if not old and (max_bytes is None or size <= max_bytes):
                break
            behind = [
                (cursors[record.partition], group)
                for group, cursors in passed.items()
                if cursors.get(record.partition, record.position) < record.position
            ]
            if behind and not force:
                at, group = min(behind)
                return Trimmed(removed, group, at)
            self._records[record.partition].pop(0)
            self.horizons[topic] = record.position
            self.streams.trim(record)
            if not self._records[record.partition]:
                del self.ends[record.partition]
            size -= len(record.message.data)
            removed += 1
        return Trimmed(removed)

    def _beyond(self, after: Mapping[Partition, int]) -> Iterator[Recorded]:
        """All records after the given positions, in the order of their own."""
        return merge(*(self._rest(partition, position) for partition, position in after.items()), key=_POSITION)

    def _rest(self, partition: Partition, position: int) -> Iterator[Recorded]:
        records = self._records.get(partition, [])
        for place in range(bisect_right(records, position, key=_POSITION), len(records)):
            yield records[place]
