"""What is stored of a key: its open groups whole, and of those that were closed the links to what they were made of."""

from __future__ import annotations

import msgspec


class Fine(msgspec.Struct, array_like=True, gc=False):
    """One event of a group. time: microseconds. position: where it stands in the log it was read from."""

    id: str
    source: str
    type: str
    time: int
    position: int | None
    data: bytes
    version: int = 1
    correlationid: str | None = None


class Link(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What is kept of an event when its group is closed."""

    id: str
    source: str
    type: str
    position: int | None


class Group(msgspec.Struct, array_like=True):
    """What has been collected. opened, last: when the first and the last event came. start, end: of its window.

    timer: the next moment at which it is looked at for certain.
    """

    epoch: str
    opened: int
    last: int
    start: int | None
    end: int | None
    events: list[Fine]
    timer: int = 0


class Closed(msgspec.Struct, array_like=True):
    """A group that is over. coarse: ids of what was published of it, the amended ones after the first."""

    epoch: str
    at: int
    reason: str
    start: int | None
    end: int | None
    coarse: list[str]
    links: list[Link]
    events: list[Fine]
    late: int = 0


class Record(msgspec.Struct, array_like=True):
    """All of a key. mark: the latest event time that was seen; seen: when an event last came. Milliseconds."""

    groups: int = 0
    mark: int = 0
    seen: int = 0
    open: list[Group] = []
    closed: list[Closed] = []


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Record).decode


def prefix_of(name: str) -> str:
    """What the keys of an aggregator's documents begin with. name: with its service's, such as `shop.registered`."""
    return f"aggregation/{name}/"


def closed_prefix(name: str) -> str:
    """What the keys of the lists of closed groups begin with; they are in the order of time."""
    return f"aggregation-closed/{name}/"


DEFINITIONS = "aggregation-definition/"


def definition_key(name: str) -> str:
    """Where it is noted that an aggregator exists."""
    return f"{DEFINITIONS}{name}"
