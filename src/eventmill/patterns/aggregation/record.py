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


class Group(msgspec.Struct, array_like=True, gc=False):
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


class Closed(msgspec.Struct, array_like=True, gc=False):
    """A group that is over. coarse: ids of what was published of it, the amended ones after the first.

    since, until: times of its first and last event, in milliseconds.
    """

    epoch: str
    at: int
    reason: str
    start: int | None
    end: int | None
    coarse: list[str]
    links: list[Link]
    events: list[Fine]
    late: int = 0
    since: int = 0
    until: int = 0


class Page(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Where closed groups are that the record has no room for. since, until: what is asked for by events of these times.
    start, end: of their windows. at: when the last of them was closed. Milliseconds."""

    number: int
    since: int
    until: int
    start: int
    end: int
    at: int


class Record(msgspec.Struct, array_like=True, gc=False):
    """All of a key. mark: the latest event time that was seen; seen: when an event last came. Milliseconds.

    closed: the newest ones; past: the pages of those before, and pages: how many there were in all. A page is a record
    with closed groups and nothing else.
    """

    groups: int = 0
    mark: int = 0
    seen: int = 0
    open: list[Group] = []
    closed: list[Closed] = []
    past: list[Page] = []
    pages: int = 0


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Record).decode


def prefix_of(name: str) -> str:
    """What the keys of an aggregator's documents begin with. name: with its service's, such as `shop.registered`."""
    return f"aggregation/{name}/"


def closed_prefix(name: str) -> str:
    """What the keys of the lists of closed groups begin with; they are in the order of time."""
    return f"aggregation-closed/{name}/"


def past_prefix(name: str) -> str:
    """What the keys of an aggregator's pages begin with."""
    return f"aggregation-past/{name}/"


def page_key(name: str, key: str, number: int) -> str:
    """Where a page of a key's closed groups is stored."""
    return f"{past_prefix(name)}{key}/{number:08d}"


DEFINITIONS = "aggregation-definition/"


def definition_key(name: str) -> str:
    """Where it is noted that an aggregator exists."""
    return f"{DEFINITIONS}{name}"
