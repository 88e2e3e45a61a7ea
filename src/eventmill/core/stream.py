"""Event streams: what one topic's log holds of one key, and what an append expects of it.

A stream is no table of its own. It is the messages of a topic that have one key; a message's `sequence` is its
version in the stream. So whatever is appended here is published, and whatever was published can be read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from eventmill.core.errors import ConfigurationError
from eventmill.core.message import Message, Recorded

StoredEvent = tuple[int, str, int, bytes, str]
"""What a fold needs of an event, and no more: version, type, schema version, data, id."""

ANY = -1
"""Expected version of a stream that may stand anywhere. `ABSENT` (0) expects that it has no event yet."""


class Stream(NamedTuple):
    """The events of one entity: `Stream("order", "536365")`, written `order/536365`."""

    topic: str
    key: str

    def __str__(self) -> str:
        return f"{self.topic}/{self.key}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The stream of `topic/key`; the key may hold slashes. Raises ConfigurationError."""
        topic, slash, key = text.partition("/")
        if not (topic and slash and key):
            raise ConfigurationError(f"stream {text!r}: write topic/key, as in order/536365")
        return cls(topic, key)


CLOSED = "closed-stream "
"""What the keys of documents begin with that close streams."""


def stored(record: Recorded) -> StoredEvent:
    """The same of a whole record."""
    message = record.message
    return message.sequence or 0, message.type, message.version, message.data, message.id


def check_append(expected: object, ids: Sequence[str], events: int) -> None:
    """Refuse what an append was called with and could not mean anything. Raises ConfigurationError."""
    if not isinstance(expected, int) or expected < ANY:
        raise ConfigurationError(f"expected={expected!r}: give a version, ABSENT or ANY")
    if not ids:
        return
    if isinstance(ids, str) or len(ids) != events:
        raise ConfigurationError(f"ids={ids!r}: give a list with one for each of the {events} events, or none")
    if len(set(ids)) != events:
        raise ConfigurationError(f"ids={ids!r}: no two events can have the same")


def closing(stream: Stream) -> str:
    """The key of the document that closes a stream: its data is the word for it, `archived` or `tombstoned`.

    Whoever puts it appends to the stream in the same unit, be it nothing: then no other append slips in between.
    """
    return CLOSED + str(stream)


class Appended:
    """What became of an append; filled in when its transaction has committed.

    positions: where its events stand in the log. version: the stream's version after the last of them.
    repeated: the same events had been stored before, so nothing was written now.
    """

    __slots__ = ("positions", "repeated", "version")

    def __init__(self) -> None:
        self.positions: Sequence[int] = ()
        self.version = 0
        self.repeated = False

    def __repr__(self) -> str:
        return f"Appended(version={self.version}, positions={list(self.positions)})"

    @property
    def position(self) -> int:
        """The last of the positions; 0 where nothing was appended."""
        return self.positions[-1] if self.positions else 0


@dataclass(slots=True, eq=False)
class Append:
    """Events for one stream, and the version it must stand at before the first of them.

    Without messages it is a condition on a stream that is not written. repeatable: the ids of the messages are the
    caller's own, and a call before this one may have stored them; where all of them are in the stream already, one after
    another in this order, nothing is appended, whatever is expected, and `appended` tells where they are; where some are
    and others not, it is a conflict. Only ids of repeatable appends are known again, until they are trimmed.
    reopens: a closed stream is no obstacle.
    """

    stream: Stream
    messages: Sequence[Message]
    expected: int = ANY
    repeatable: bool = False
    reopens: bool = False
    appended: Appended = field(default_factory=Appended)


def all_of(entries: Sequence[Message | Append]) -> Sequence[Message]:
    """The messages of all of them, in order."""
    if len(entries) == 1 and isinstance(entries[0], Append):
        return entries[0].messages
    found: list[Message] = []
    for entry in entries:
        if isinstance(entry, Message):
            found.append(entry)
        else:
            found += entry.messages
    return found


@dataclass(frozen=True, slots=True)
class Query:
    """Events that have all of these tags and one of these types; no tags or no types: any."""

    tags: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.tags and not self.types:
            raise ConfigurationError("a query names tags, types, or both")

    def matches(self, message: Message) -> bool:
        """Whether this is an event that the query asks for."""
        return self.tags.issubset(message.tags) and (not self.types or message.type in self.types)


@dataclass(frozen=True, slots=True)
class Absence:
    """The condition that no event of any of the queries stands beyond a position of the store's log.

    Each query of a condition names at least one tag: the tags are what concurrent transactions meet at.
    """

    queries: Sequence[Query]
    after: int

    def __post_init__(self) -> None:
        if not self.queries or not all(query.tags for query in self.queries):
            raise ConfigurationError("each query of an append's condition names at least one tag")
