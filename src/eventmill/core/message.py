"""The envelope: CloudEvents 1.0, and what the log adds to it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

JSON = "application/json"


class Partition(NamedTuple):
    """One ordered part of a topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.number}"


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One fact on its way. `source` and `id` together are its identity, for ever and everywhere.

    The fields are CloudEvents attributes and extensions of the same meaning, except:
    `topic` is where the message is kept (by default the type's name up to its first dot);
    `key` is the extension `partitionkey`: messages of one topic and key keep their order;
    `time` is in microseconds since 1970 UTC;
    `version` is the event type's schema version (`schemaversion` on the wire);
    `sequence` counts 1, 2, 3, … per topic and key, and is given by the log that first stores the message;
    `tags` name what else the event is about (`course:c1`), for conditions and reads across streams.
    """

    id: str
    source: str
    type: str
    topic: str
    time: int
    data: bytes
    key: str | None = None
    version: int = 1
    sequence: int | None = None
    subject: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    contenttype: str = JSON
    extensions: dict[str, str] | None = None
    tags: tuple[str, ...] = ()

    @property
    def at(self) -> datetime:
        """The moment of the event, with its time zone (UTC)."""
        return datetime.fromtimestamp(self.time / 1_000_000, UTC)

    @property
    def identity(self) -> tuple[str, str]:
        """Id and source: what a repeat of the message is known by."""
        return self.id, self.source

    @property
    def lane(self) -> str | None:
        """Topic and key in one string, the unit of order; None for a message without a key."""
        return None if self.key is None else f"{self.topic}/{self.key}"


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """A message as the log holds it.

    `position` only grows within a partition and is never used twice; `recorded_at` is the moment
    of the append, in milliseconds since 1970 UTC. `unreadable`: why this is not the message that was
    sent, where a foreign producer sent what could not be read; it is dead-lettered, never handled.
    """

    position: int
    partition: Partition
    recorded_at: int
    message: Message
    unreadable: str | None = None
