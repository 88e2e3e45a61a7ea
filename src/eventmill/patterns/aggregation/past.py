"""Closed groups that a key's record has no room for: pages of them, each a document of its own.

A key that goes on for ever, as one with a window a minute, has more closed groups than can be read and written with each
event. The newest stay with it; of the others it knows which page has which times, and reads a page where an event is so old.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eventmill.core.window import Gap
from eventmill.patterns.aggregation.collect import Rules
from eventmill.patterns.aggregation.record import Closed, Fine, Page, Record

LINKS = 1_000
"""Links to events that a record keeps of its closed groups, and that a page has. Twice as many make it move some."""

GROUPS = 100
"""The same for groups."""


def asked_for(rules: Rules, record: Record, events: Sequence[Fine]) -> list[Page]:
    """The pages which may know one of these events, or have the group that it would have been of."""
    if not record.past:
        return []
    around = rules.window.gap if isinstance(rules.window, Gap) else 0
    times = sorted(event.time // 1000 for event in events)
    first, last = times[0] - around, times[-1] + around
    return [
        page
        for page in record.past
        if page.since <= last
        and first <= page.until
        and any(page.since <= time + around and time - around <= page.until for time in times)
    ]


def moved(rules: Rules, record: Record, now: int) -> list[tuple[Page, list[Closed]]]:
    """Take from the record what it has no room for, as new pages. The newest group, and windows that go on, stay."""
    closed = record.closed
    if len(closed) <= 2 * GROUPS and sum(len(each.links) for each in closed) <= 2 * LINKS:
        return []
    stay = _staying(closed)
    going = [each for each in closed[:-stay] if _over(rules, each, now)]
    if not going:
        return []
    gone = {id(each) for each in going}
    record.closed = [each for each in closed if id(each) not in gone]
    pages = []
    for groups in _parts(going):
        starts = [each.start for each in groups if each.start is not None]
        ends = [each.end for each in groups if each.end is not None]
        # In event time a window's own span is part of what is asked for; by the clock, only the events' times are.
        by_event = rules.window is not None and rules.time == "event"
        page = Page(
            record.pages,
            min([each.since for each in groups] + (starts if by_event else [])),
            max([each.until for each in groups] + (ends if by_event else [])),
            min(starts, default=0),
            max(ends, default=0),
            max(each.at for each in groups),
        )
        record.pages += 1
        record.past.append(page)
        pages.append((page, groups))
    return pages


def _staying(closed: Sequence[Closed]) -> int:
    """How many of the newest are kept: one at least."""
    links = number = 0
    for each in reversed(closed):
        links += len(each.links)
        if number and (links > LINKS or number == GROUPS):
            break
        number += 1
    return number


def _over(rules: Rules, closed: Closed, now: int) -> bool:
    """Whether nothing that comes by the clock can be of this group: by event time, it would ask for the page."""
    return closed.end is None or rules.time == "event" or rules.late == "new" or closed.end <= now


def _parts(groups: Sequence[Closed]) -> Iterator[list[Closed]]:
    part: list[Closed] = []
    links = 0
    for each in groups:
        if part and (links + len(each.links) > LINKS or len(part) == GROUPS):
            yield part
            part, links = [], 0
        part.append(each)
        links += len(each.links)
    if part:
        yield part
