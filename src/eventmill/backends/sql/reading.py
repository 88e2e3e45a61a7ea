"""Reading one log table for many partitions: what is read together, and how far it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from eventmill.backends.sql.rows import recorded
from eventmill.core.message import Partition, Recorded
from eventmill.core.reading import Page, Types

SCAN = 50_000
"""Positions looked through in one read at most, so that a read stays short however rare its types are."""

DATA = 9
"""The column of a log row that holds the data."""


class Span(NamedTuple):
    """These partitions, from beyond `after` up to `end`."""

    partitions: tuple[Partition, ...]
    after: int
    end: int


def rearmost(moved: Mapping[Partition, int], end: int) -> Span:
    """Partitions that stand at the same place are read together, the rearmost first, until they reach the next ones.

    moved: where each partition stands that may have more. end: the log's.
    """
    lowest = min(moved.values())
    together = tuple(sorted(partition for partition, position in moved.items() if position == lowest))
    further = [position for position in moved.values() if position > lowest]
    return Span(together, lowest, min(end, lowest + SCAN, *further))


def page(span: Span, rows: Iterable[Sequence[Any]], *, limit: int, max_bytes: int) -> Page:
    """The messages of a span's rows; where one of the bounds ends it early, it reaches to the last of them."""
    messages = []
    size = 0
    for row in rows:
        messages.append(recorded(row))
        size += len(row[DATA])
        if size >= max_bytes:
            break
    cut = messages and (len(messages) == limit or size >= max_bytes)
    return Page(messages, dict.fromkeys(span.partitions, messages[-1].position if cut else span.end))


def bounded(
    rows: Iterable[Sequence[Any]], after: int, end: int, *, limit: int, max_bytes: int
) -> tuple[list[Recorded], int]:
    """The messages of rows between two positions, and how far they reach: to the last where a bound ends them early."""
    messages: list[Recorded] = []
    size = 0
    for row in rows:
        messages.append(recorded(row))
        size += len(row[DATA])
        if size >= max_bytes:
            break
    cut = messages and (len(messages) == limit or size >= max_bytes)
    return messages, messages[-1].position if cut else end


def by_position(after: Mapping[Partition, int]) -> dict[int, tuple[Partition, ...]]:
    """The partitions that stand at each position: they are asked about together."""
    places: dict[int, list[Partition]] = {}
    for partition, position in after.items():
        places.setdefault(position, []).append(partition)
    return {position: tuple(sorted(partitions)) for position, partitions in places.items()}


def earliest(moments: Iterable[int | None]) -> int | None:
    """The first of some moments, of which there may be none."""
    return min((moment for moment in moments if moment is not None), default=None)


def condition(
    partitions: tuple[Partition, ...],
    types: Types | None,
    *,
    of_topic: Callable[[str, list[int]], str],
    named: Callable[[list[str]], str],
    begins: Callable[[str], str],
) -> str:
    """The WHERE clause for some partitions and types; the three say, in a database's own SQL, what holds of one
    topic's partitions, of some names, of one prefix."""
    topics: dict[str, list[int]] = {}
    for partition in partitions:
        topics.setdefault(partition.topic, []).append(partition.number)
    found = f"({' OR '.join(of_topic(topic, numbers) for topic, numbers in topics.items())})"
    if types is None:
        return found
    wanted = [named(sorted(types.names))] if types.names else []
    wanted += [begins(prefix) for prefix in sorted(types.prefixes)]
    return f"{found} AND ({' OR '.join(wanted) or 'false'})"
