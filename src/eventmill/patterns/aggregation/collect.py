"""When a group is complete, and what becomes of what comes too late. Pure: the record of a key in, the record changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal, NamedTuple

from eventmill.core.window import Gap, Span, Window
from eventmill.patterns.aggregation.record import Closed, Fine, Group, Link, Record

_IN_ORDER = attrgetter("time", "source", "id")

Late = Literal["side", "amend", "new", "refuse"]
Time = Literal["event", "processing"]
Reason = Literal["complete", "window", "idle", "deadline", "limit", "forced"]


@dataclass(frozen=True, slots=True)
class Rules:
    """How an aggregator was declared. Times in milliseconds; `until` is asked with the group's events."""

    all_of: frozenset[str] = frozenset()
    count: int | None = None
    until: Callable[[Group], bool] | None = None
    window: Window | None = None
    time: Time = "processing"
    grace: int = 0
    idle: int | None = None
    timeout: int | None = None
    late: Late = "side"
    limit: int = 10_000

    @property
    def by_content(self) -> bool:
        """Whether what was collected says when a group is complete."""
        return bool(self.all_of) or self.count is not None or self.until is not None

    @property
    def hurries(self) -> bool:
        """Whether a group's end can come nearer: event time passes faster than the clock where old events are read."""
        return self.window is not None and self.time == "event"

    def satisfied(self, group: Group) -> bool:
        """Whether all that must be there is there."""
        if self.all_of and (
            len(group.events) < len(self.all_of) or not self.all_of <= {event.type for event in group.events}
        ):
            return False
        if self.count is not None and len(group.events) < self.count:
            return False
        return self.until is None or self.until(group)


class Ended(NamedTuple):
    """A group that is to be closed. complete: nothing is missing of it."""

    group: Group
    reason: Reason
    complete: bool


class TooLate(NamedTuple):
    """An event whose group is over."""

    event: Fine
    closed: Closed | None


@dataclass(slots=True)
class Result:
    """What follows from an event or a moment."""

    ended: list[Ended] = field(default_factory=list)
    late: list[TooLate] = field(default_factory=list)
    changed: bool = False
    _known: set[tuple[str, str]] | None = None
    _counted: int = 0

    def closed_with(self, record: Record, event: Fine) -> bool:
        """Whether a closed group has this event. Groups may only be added to the record meanwhile; else `forget`."""
        if self._known is None:
            self._known = set()
        if self._counted < len(record.closed):
            for closed in record.closed[self._counted :]:
                self._known.update([(link.id, link.source) for link in closed.links])
            self._counted = len(record.closed)
        return (event.id, event.source) in self._known

    def forget(self) -> None:
        """A closed group has got another event."""
        self._known, self._counted = None, 0


def add(rules: Rules, record: Record, event: Fine, now: int, result: Result) -> None:
    """Take in one event. The same event a second time changes nothing."""
    if rules.window is None:
        group = record.open[0] if record.open else None
        _into(rules, record, group, None, event, now, result)
        return
    if rules.time == "processing" and (
        any(_has(group.events, event) for group in record.open) or result.closed_with(record, event)
    ):
        return  # by the clock a repeat would fall into another window
    at = event.time // 1000 if rules.time == "event" else now
    spans = [Span(group.start or 0, group.end or 0) for group in record.open]
    if isinstance(rules.window, Gap):
        if any(_has(group.events, event) for group in record.open):
            return
        (span,) = rules.window.spans(at, spans)
        joined = [group for group in record.open if _within(group, span)]
        _into(rules, record, _joined(record, joined, span), span, event, now, result)
    else:
        for span in rules.window.spans(at, spans):
            found = next((group for group in record.open if group.start == span.start), None)
            _into(rules, record, found, span, event, now, result)
    if rules.time == "event":
        record.mark = max(record.mark, at)
        record.seen = now
        _pass(rules, record, record.mark, result)


def _into(
    rules: Rules, record: Record, group: Group | None, span: Span | None, event: Fine, now: int, result: Result
) -> None:
    if group is None:
        before = _before(rules, record, span)
        if result.closed_with(record, event) if span is None else (before is not None and _among(before.links, event)):
            return
        passed = span is not None and rules.time == "event" and span.end + rules.grace <= record.mark
        begins_anew = rules.late == "new" or (rules.late == "amend" and before is None)
        if (before is not None or passed) and not begins_anew:
            result.late.append(TooLate(event, before))
            return
        group = _open(record, span, now)
    elif _has(group.events, event) or (span is None and result.closed_with(record, event)):
        return
    group.events.append(event)
    group.last = now
    result.changed = True
    if rules.by_content and rules.satisfied(group):
        _end(record, group, "complete", True, result)
    elif len(group.events) >= rules.limit:
        _end(record, group, "limit", False, result)


def _before(rules: Rules, record: Record, span: Span | None) -> Closed | None:
    """The closed group that an event of this span would have been of."""
    if span is None:
        return record.closed[-1] if record.closed else None
    for closed in reversed(record.closed):
        if closed.start is None or closed.end is None:
            continue
        if isinstance(rules.window, Gap):
            if closed.start < span.end and span.start < closed.end:
                return closed
        elif closed.start == span.start:
            return closed
    return None


def _open(record: Record, span: Span | None, now: int) -> Group:
    record.groups += 1
    if span is None:
        group = Group(str(record.groups), now, now, None, None, [])
    else:
        group = Group(_epoch(record, span.start), now, now, span.start, span.end, [])
    record.open.append(group)
    return group


def _epoch(record: Record, start: int) -> str:
    """A name for a group that begins then, which no other group of the key has had."""
    if any(page.start <= start < page.end for page in record.past):
        return f"{start}.{record.groups}"  # some page may have one; there have been fewer of it than of all
    again = sum(1 for closed in record.closed if closed.start == start)
    return f"{start}.{again + 1}" if again else str(start)


def _joined(record: Record, groups: Sequence[Group], span: Span) -> Group | None:
    """Sessions that have grown together, as one."""
    if not groups:
        return None
    first = groups[0]
    for other in groups[1:]:
        first.events += [event for event in other.events if not _has(first.events, event)]
        first.opened = min(first.opened, other.opened)
        record.open.remove(other)
    if first.start != span.start:
        first.start, first.epoch = span.start, _epoch(record, span.start)
    first.end = span.end
    return first


def _within(group: Group, span: Span) -> bool:
    return group.start is not None and group.end is not None and span.start <= group.start and group.end <= span.end


def _has(events: Sequence[Fine], event: Fine) -> bool:
    id_, source = event.id, event.source
    for each in events:  # noqa: SIM110 - asked for each event, and a loop takes half as long
        if each.id == id_ and each.source == source:
            return True
    return False


def _among(links: Sequence[Link], event: Fine) -> bool:
    id_, source = event.id, event.source
    for each in links:  # noqa: SIM110
        if each.id == id_ and each.source == source:
            return True
    return False


# Time


def look(rules: Rules, record: Record, now: int, result: Result) -> None:
    """Close what is over by this moment: windows that have ended, groups that are idle, or past their deadline."""
    if rules.window is not None:
        # Event time goes on with the clock where nothing comes, so that a quiet key's windows end, too.
        mark = now if rules.time == "processing" else record.mark + max(0, now - record.seen)
        _pass(rules, record, mark, result)
    for group in list(record.open):
        if rules.idle is not None and group.last + rules.idle <= now:
            _end(record, group, "idle", not rules.by_content, result)
        elif rules.timeout is not None and group.opened + rules.timeout <= now:
            _end(record, group, "deadline", False, result)


def due(rules: Rules, record: Record, group: Group) -> int | None:
    """When to look at a group again, at the latest."""
    moments = []
    if rules.idle is not None:
        moments.append(group.last + rules.idle)
    if rules.timeout is not None:
        moments.append(group.opened + rules.timeout)
    if group.end is not None:
        if rules.time == "processing":
            moments.append(group.end + rules.grace)
        else:
            moments.append(record.seen + group.end + rules.grace - record.mark)
    return min(moments, default=None)


def _pass(rules: Rules, record: Record, mark: int, result: Result) -> None:
    for group in sorted(record.open, key=lambda each: each.start or 0):
        if group.end is not None and group.end + rules.grace <= mark:
            _end(record, group, "window", not rules.by_content, result)


def force(record: Record, result: Result) -> None:
    """Close everything that is open, as if it were complete."""
    for group in list(record.open):
        _end(record, group, "forced", True, result)


def _end(record: Record, group: Group, reason: Reason, complete: bool, result: Result) -> None:
    # In an order that does not depend on how they came.
    group.events.sort(key=_IN_ORDER)
    record.open.remove(group)
    result.ended.append(Ended(group, reason, complete))
    result.changed = True


def close(record: Record, ended: Ended, now: int, coarse: str | None, *, keep_events: bool) -> None:
    """Write down that a group is over, and what it was made of."""
    group = ended.group
    links = [Link(event.id, event.source, event.type, event.position) for event in group.events]
    record.closed.append(
        Closed(
            group.epoch, now, ended.reason, group.start, group.end,
            [] if coarse is None else [coarse], links, group.events if keep_events else [],
            since=min([event.time for event in group.events]) // 1000,
            until=max([event.time for event in group.events]) // 1000,
        )
    )  # fmt: skip
