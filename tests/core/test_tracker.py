from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.tracker import Tracker


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Positions handed out in order, the order they end in, and how many end before a restart."""
    positions = sorted(draw(st.sets(st.integers(1, 40), max_size=15)))
    return positions, draw(st.permutations(positions)), draw(st.integers(0, len(positions)))


@given(runs(), st.integers(0, 10))
def test_a_restart_repeats_what_was_not_done_and_nothing_else(run: tuple[list[int], list[int], int], more: int) -> None:
    positions, order, ends = run
    tracker = Tracker(0)
    assert all(tracker.start(position) for position in positions)
    last = max(positions, default=0) + more
    tracker.scanned(last)
    previous = 0
    for position in order[:ends]:
        tracker.done(position)
        prefix, ahead = tracker.cursor()
        assert prefix >= previous
        previous = prefix
    prefix, ahead = tracker.cursor()
    assert tracker.in_flight == len(positions) - ends
    assert all(position > prefix for position in ahead)
    done = set(order[:ends])
    assert {position for position in positions if position <= prefix or position in ahead} == done
    assert prefix == last if ends == len(positions) else prefix == min(set(positions) - done) - 1

    again = Tracker(prefix, ahead)
    assert [position for position in positions if again.start(position)] == sorted(set(positions) - done)
    again.scanned(last)
    for position in set(positions) - done:
        again.done(position)
    assert again.cursor() == (last, [])


def test_positions_of_no_interest_move_the_cursor() -> None:
    tracker = Tracker(5)
    tracker.scanned(90)
    tracker.scanned(80)
    assert tracker.cursor() == (90, [])
    assert not tracker.start(90)
