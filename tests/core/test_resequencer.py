from __future__ import annotations

from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmill.core.errors import ConfigurationError
from eventmill.core.resequencer import MAX_GAPS, Deliver, Gap, LaneState, Park, Repeat, Resequencer


def delivered(decisions: object, lane: str = "a") -> list[int]:
    assert isinstance(decisions, list)
    return [d.sequence for d in decisions if isinstance(d, Deliver) and d.lane == lane]


@st.composite
def shuffles(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Two lanes of 1..n, each number at least once, in any order."""
    counts = {"a": draw(st.integers(1, 12)), "b": draw(st.integers(0, 12))}
    every = [(lane, number) for lane, count in counts.items() for number in range(1, count + 1)]
    again = draw(st.lists(st.sampled_from(every), max_size=10))
    return draw(st.permutations(every + again))


@given(shuffles(), st.sampled_from(["park", "skip"]), st.booleans())
def test_any_order_with_repeats_comes_out_in_order_and_once(
    arrivals: list[tuple[str, int]], on_gap: Literal["park", "skip"], restarted: bool
) -> None:
    sequencer: Resequencer[tuple[str, int]] = Resequencer(60.0, 100, on_gap)
    out: dict[str, list[int]] = {"a": [], "b": []}
    repeats = 0
    for index, (lane, number) in enumerate(arrivals):
        now = index * 0.5
        assert sequencer.expire(now) == []
        for decision in sequencer.offer(lane, number, (lane, number), now):
            assert isinstance(decision, Deliver | Repeat)
            assert decision.item == (decision.lane, decision.sequence)
            if isinstance(decision, Repeat):
                repeats += 1
            else:
                out[decision.lane].append(decision.sequence)
        if restarted and not sequencer.held:
            states = {name: sequencer.state(name) for name in out}
            sequencer = Resequencer(60.0, 100, on_gap)
            for name, state in states.items():
                sequencer.restore(name, state)
    for lane, numbers in out.items():
        assert numbers == list(range(1, len({n for at, n in arrivals if at == lane}) + 1))
    assert repeats == len(arrivals) - len(set(arrivals))
    assert sequencer.held == 0
    assert sequencer.next_expiry is None


steps = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(-1, 15), st.sampled_from([0.0, 0.5, 4.0, 11.0])), max_size=60
)


@settings(max_examples=300)
@given(steps, st.sampled_from(["park", "skip"]), st.integers(0, 5), st.sampled_from([1, "first"]))
def test_whatever_comes_nothing_is_lost_or_out_of_order(
    arrivals: list[tuple[str, int, float]],
    on_gap: Literal["park", "skip"],
    max_held: int,
    start: Literal[1, "first"],
) -> None:
    sequencer: Resequencer[int] = Resequencer(10.0, max_held, on_gap, start=start)
    now, decided = 0.0, set()
    out: dict[str, list[int]] = {"a": [], "b": []}
    for ticket, (lane, number, pause) in enumerate(arrivals):
        now += pause
        for decision in [*sequencer.expire(now), *sequencer.offer(lane, number, ticket, now)]:
            if isinstance(decision, Gap):
                assert decision.first <= decision.last
                assert on_gap == "skip"
                continue
            assert decision.item not in decided
            decided.add(decision.item)
            if isinstance(decision, Deliver):
                out[decision.lane].append(decision.sequence)
            elif isinstance(decision, Repeat):
                # Only what was delivered, or is held, may be forgotten.
                assert decision.sequence in out[decision.lane] or sequencer.held
        assert sequencer.held <= max_held
        assert len(decided) + sequencer.held == ticket + 1
        assert sequencer.next_expiry is None or sequencer.next_expiry > now
    sequencer.expire(now + 10.0)
    assert sequencer.held == 0
    for numbers in out.values():
        assert numbers == sorted(set(numbers))
        if on_gap == "park" and numbers:
            assert numbers == list(range(numbers[0], numbers[-1] + 1))


def test_a_gap_is_waited_for_until_the_bound() -> None:
    sequencer: Resequencer[str] = Resequencer(10.0, 100, "skip")
    assert sequencer.offer("a", 3, "three", 0.0) == []
    assert sequencer.offer("a", 5, "five", 4.0) == []
    assert sequencer.next_expiry == 10.0
    assert sequencer.expire(9.9) == []
    assert sequencer.expire(10.0) == [Gap("a", 1, 2, "waited 10 s"), Deliver("a", 3, "three")]
    assert sequencer.next_expiry == 14.0
    assert sequencer.offer("a", 4, "four", 11.0) == [Deliver("a", 4, "four"), Deliver("a", 5, "five")]
    assert sequencer.offer("a", 2, "two", 12.0) == [Park("a", 2, "two", "came after its number was given up")]
    assert sequencer.offer("a", 3, "three", 12.0) == [Repeat("a", 3, "three")]


def test_parked_lanes_go_on_when_the_missing_number_comes() -> None:
    sequencer: Resequencer[str] = Resequencer(10.0, 100, "park")
    sequencer.offer("a", 3, "three", 0.0)
    sequencer.offer("a", 2, "two", 1.0)
    reason = "1 is missing before it: waited 10 s"
    assert sequencer.expire(10.0) == [Park("a", 2, "two", reason), Park("a", 3, "three", reason)]
    # All that follows parks at once, in order, and other lanes are not disturbed.
    assert sequencer.offer("a", 4, "four", 11.0) == [Park("a", 4, "four", "1 is missing before it")]
    assert sequencer.offer("b", 1, "other", 11.0) == [Deliver("b", 1, "other")]
    assert sequencer.offer("a", 1, "one", 12.0) == [Deliver("a", 1, "one")]
    # 2 to 4 are in the operator's hands: what overtakes them parks, too, until they are offered again.
    assert sequencer.offer("a", 5, "five", 13.0) == [Park("a", 5, "five", "2 is missing before it")]
    for number, item in enumerate(["two", "three", "four", "five"], start=2):
        assert sequencer.offer("a", number, item, 14.0) == [Deliver("a", number, item)]
    assert sequencer.offer("a", 7, "seven", 15.0) == []
    assert sequencer.offer("a", 6, "six", 15.0) == [Deliver("a", 6, "six"), Deliver("a", 7, "seven")]


def test_resume_gives_up_what_is_missing() -> None:
    sequencer: Resequencer[str] = Resequencer(10.0, 100, "park")
    sequencer.offer("a", 3, "three", 0.0)
    sequencer.offer("a", 5, "five", 0.0)
    assert sequencer.resume("a", 5) == [
        Park("a", 3, "three", "given up: resumed at 5"),
        Gap("a", 1, 4, "resumed"),
        Deliver("a", 5, "five"),
    ]
    assert sequencer.resume("a", 5) == []
    assert sequencer.resume("unknown", 5) == []
    assert sequencer.held == 0
    assert sequencer.offer("a", 6, "six", 1.0) == [Deliver("a", 6, "six")]


def test_the_lane_that_waited_longest_is_decided_when_too_much_is_held() -> None:
    sequencer: Resequencer[str] = Resequencer(10.0, 2, "skip")
    sequencer.offer("a", 2, "a2", 0.0)
    sequencer.offer("b", 2, "b2", 0.0)
    assert sequencer.offer("b", 4, "b4", 0.0) == [Gap("a", 1, 1, "more than 2 items are held"), Deliver("a", 2, "a2")]
    assert sequencer.held == 2


def test_a_lane_may_begin_with_whatever_comes_first() -> None:
    sequencer: Resequencer[str] = Resequencer(10.0, 100, start="first")
    assert delivered(sequencer.offer("a", 7, "seven", 0.0)) == [7]
    assert sequencer.offer("a", 6, "six", 0.0) == [Park("a", 6, "six", "numbered before 7, where its lane began")]
    zero: Resequencer[str] = Resequencer(10.0, 100, start=0)
    assert delivered(zero.offer("a", 0, "zero", 0.0)) == [0]


def test_a_failed_commit_is_taken_back() -> None:
    sequencer: Resequencer[str] = Resequencer(10.0, 100)
    before = LaneState(expected=1, first=1)
    sequencer.restore("a", before)
    sequencer.offer("a", 4, "four", 0.0)
    assert delivered(sequencer.offer("a", 1, "one", 0.0)) == [1]
    assert sequencer.restore("a", before) == []
    assert delivered(sequencer.offer("a", 1, "one again", 1.0)) == [1]
    # A state that has come further decides what is held.
    assert sequencer.restore("a", LaneState(expected=4, first=1)) == [Deliver("a", 4, "four")]
    assert sequencer.held == 0
    sequencer.offer("a", 6, "six", 2.0)
    assert sequencer.restore("a", LaneState(expected=9, first=1)) == [Repeat("a", 6, "six")]
    sequencer.offer("a", 11, "eleven", 2.0)
    assert sequencer.restore("a", None) == []
    assert sequencer.held == 0
    assert sequencer.state("a") is None


def test_a_state_is_stored_as_json() -> None:
    sequencer: Resequencer[str] = Resequencer(10.0, 100, "skip")
    sequencer.offer("a", 3, "three", 0.0)
    sequencer.expire(10.0)
    state = sequencer.state("a")
    assert state == LaneState(expected=4, first=1, gaps=((1, 2),), seen=0.0)
    assert msgspec.json.decode(msgspec.json.encode(state), type=LaneState) == state


def test_remembered_gaps_are_bounded() -> None:
    sequencer: Resequencer[int] = Resequencer(0.0, 0, "skip")
    for number in range(2, 2 * MAX_GAPS + 20, 2):
        sequencer.offer("a", number, number, 0.0)
    state = sequencer.state("a")
    assert state is not None
    assert len(state.gaps) == MAX_GAPS


def test_quiet_lanes_are_pruned_unless_they_hold_something() -> None:
    sequencer: Resequencer[str] = Resequencer(10.0, 100)
    sequencer.offer("old", 1, "", 0.0)
    sequencer.offer("holding", 2, "", 0.0)
    sequencer.offer("new", 1, "", 90.0)
    assert list(sequencer.prune(60.0, 100.0)) == ["old"]
    assert sequencer.state("old") is None
    assert sequencer.state("holding") is not None


def test_a_clock_that_goes_back_stands_still() -> None:
    sequencer: Resequencer[str] = Resequencer(10.0, 100, "skip")
    sequencer.offer("a", 2, "two", 100.0)
    sequencer.offer("b", 2, "two", 50.0)
    assert len(sequencer.expire(109.0)) == 0
    assert delivered(sequencer.expire(110.0), "b") == [2]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"max_wait": -1.0}, "max_wait"),
        ({"max_wait": float("nan")}, "max_wait"),
        ({"max_held": -1}, "max_held"),
        ({"on_gap": "drop"}, "on_gap"),
        ({"start": "last"}, "start"),
    ],
)
def test_wrong_settings_are_refused_with_the_field(settings: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{field}="):
        Resequencer(**{"max_wait": 1.0, "max_held": 1, **settings})  # type: ignore[arg-type]
