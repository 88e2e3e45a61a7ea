"""Reading one log table for many partitions: what is read together, and how far it comes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from eventmill.backends.sql.rows import recorded
from eventmill.core.message import Partition, Recorded
from eventmill.core.reading import Page

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
