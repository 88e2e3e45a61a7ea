"""Groups alone, without a store: all orders of arrival and all duplicates of small groups make the same of them."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill.core.window import session, sliding, tumbling
from eventmill.patterns.aggregation.collect import Result, Rules, add, close, due, force, look
from eventmill.patterns.aggregation.record import Fine, Record, decode, encode


def fine(number: int, kind: str = "a", at: int = 0) -> Fine:
    """at: milliseconds."""
    return Fine(f"m{number}", "test", kind, at * 1000, number, b"{}")


def feed(
    rules: Rules, events: list[Fine], *, now: int = 0, step: int = 0, end: int | None = None
) -> tuple[Record, list[tuple]]:  # type: ignore[type-arg]
    """Let events come one after another, each in a transaction of its own; returns what was closed, in order."""
    record, closed = Record(), []

    def settle(result: Result) -> None:
        for ended in result.ended:
            closed.append((ended.group.epoch, ended.reason, ended.complete, [event.id for event in ended.group.events]))
            close(record, ended, now, "c", keep_events=False)

    for event in events:
        record = decode(encode(record))
        result = Result()
        add(rules, record, event, now, result)
        settle(result)
        now += step
    if end is not None:
        result = Result()
        look(rules, record, end, result)
        settle(result)
    return record, closed


PARTS = [fine(1, "a", 30), fine(2, "b", 10), fine(3, "c", 20)]


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("late", ["side", "amend", "refuse", "new"])
def test_all_of_in_every_order_with_every_duplicate(order: tuple[int, ...], late: str) -> None:
    rules = Rules(all_of=frozenset("abc"), late=late)  # type: ignore[arg-type]
    events = [PARTS[place] for place in order]
    for doubled in range(3):
        for place in range(4):
            repeated = [*events[:place], PARTS[doubled], *events[place:]]
            record, closed = feed(rules, repeated)
            assert closed == [("1", "complete", True, ["m2", "m3", "m1"])]
            assert not record.open


@settings(max_examples=300, deadline=None)
@given(
    times=st.lists(st.integers(0, 400), min_size=1, max_size=6),
    doubles=st.lists(st.integers(0, 5), max_size=4),
    window=st.sampled_from([tumbling(0.1), sliding(0.1, every=0.05), session(0.06)]),
    random=st.randoms(),
)
def test_windows_in_every_order_with_duplicates(
    times: list[int], doubles: list[int], window: object, random: object
) -> None:
    """As long as the grace covers the disorder: the same groups, each event once in each of its windows."""
    rules = Rules(window=window, time="event", grace=1_000, late="side")  # type: ignore[arg-type]
    events = [fine(number, at=at) for number, at in enumerate(times)]
    _, expected = feed(rules, sorted(events, key=lambda event: event.time), end=10_000)
    mixed = [*events, *(events[double % len(events)] for double in doubles)]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    record, closed = feed(rules, mixed, end=10_000)
    assert sorted(closed) == sorted(expected)
    assert not record.open
    _, repeated = feed(rules, mixed + mixed, end=10_000)
    assert sorted(repeated) == sorted(expected)


def test_a_window_closes_by_later_events_and_a_quiet_one_by_the_clock() -> None:
    rules = Rules(window=tumbling(0.1), time="event", grace=20)
    record, closed = feed(rules, [fine(1, at=10), fine(2, at=110)], now=5_000)
    assert closed == []
    record, closed = feed(rules, [fine(1, at=10), fine(2, at=121)], now=5_000)
    assert [each[0] for each in closed] == ["0"]
    (group,) = record.open
    assert due(rules, record, group) == 5_000 + 200 + 20 - 121
    _, closed = feed(rules, [fine(1, at=10)], now=5_000, end=5_109)
    assert closed == []
    _, closed = feed(rules, [fine(1, at=10)], now=5_000, end=5_110)
    assert [each[0] for each in closed] == ["0"]


def test_a_backfill_makes_whole_windows_however_fast_it_comes() -> None:
    """Hours of event time within a moment of the clock: nothing is closed in parts."""
    rules = Rules(window=tumbling(60), time="event", grace=5_000)
    events = [fine(number, at=number * 1_000) for number in range(3_600)]
    _, closed = feed(rules, events, now=10**12)
    assert len(closed) == 59
    assert all(len(ids) == 60 for _, _, _, ids in closed)


def test_processing_time_goes_by_the_clock() -> None:
    rules = Rules(window=tumbling(0.1), time="processing", late="new")
    record, closed = feed(rules, [fine(n) for n in range(4)], now=1_000, step=40, end=1_200)
    assert [(epoch, ids) for epoch, _, _, ids in closed] == [("1000", ["m0", "m1", "m2"]), ("1100", ["m3"])]
    assert not record.open


def test_count_until_idle_deadline_and_limit() -> None:
    _, closed = feed(Rules(count=2, late="new"), [fine(n) for n in range(5)])
    assert [ids for *_, ids in closed] == [["m0", "m1"], ["m2", "m3"]]
    assert [epoch for epoch, *_ in closed] == ["1", "2"]
    _, closed = feed(Rules(until=lambda group: group.events[-1].type == "end", late="new"), [fine(1), fine(2, "end")])
    assert closed == [("1", "complete", True, ["m1", "m2"])]
    idle = Rules(idle=100, late="new")
    assert feed(idle, [fine(1), fine(2)], step=60, end=159)[1] == []
    assert feed(idle, [fine(1), fine(2)], step=60, end=160)[1] == [("1", "idle", True, ["m1", "m2"])]
    timed = Rules(all_of=frozenset("ab"), timeout=100)
    assert feed(timed, [fine(1)], end=99)[1] == []
    assert feed(timed, [fine(1)], end=100)[1] == [("1", "deadline", False, ["m1"])]
    _, closed = feed(Rules(all_of=frozenset("ab"), limit=3, late="new"), [fine(n) for n in range(4)])
    assert closed == [("1", "limit", False, ["m0", "m1", "m2"])]


@pytest.mark.parametrize(("late", "closed", "told"), [("side", 1, 1), ("refuse", 1, 1), ("amend", 1, 1), ("new", 1, 0)])
def test_what_comes_too_late_is_told_or_begins_anew(late: str, closed: int, told: int) -> None:
    rules = Rules(all_of=frozenset("ab"), late=late)  # type: ignore[arg-type]
    record, ended = feed(rules, [fine(1, "a"), fine(2, "b")])
    assert len(ended) == closed
    result = Result()
    add(rules, record, fine(3, "a"), 0, result)
    assert len(result.late) == told
    assert bool(record.open) == (late == "new")
    add(rules, record, fine(1, "a"), 0, again := Result())
    assert not again.late, "a repeat of what is in it is not late"


def test_forcing_closes_all() -> None:
    rules = Rules(window=sliding(0.1, every=0.05), time="event", grace=1_000)
    record, _ = feed(rules, [fine(1, at=60)])
    assert len(record.open) == 2
    result = Result()
    force(record, result)
    assert [(ended.reason, ended.complete) for ended in result.ended] == [("forced", True)] * 2
    assert not record.open
