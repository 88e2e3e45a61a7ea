"""Growing and shrinking: what is decided, when, and in which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.errors import ConfigurationError
from eventmill.runtime.scaling import Backlog, Change, Scaling

NOTHING = Backlog(0, 0.0)
HUGE = 10**9


def run(scaling: Scaling, backlogs: list[Backlog], *, step: float = 1.0, start: int = 1) -> list[tuple[float, Change]]:
    """Feed one backlog a step, obey each change, and return them with their times."""
    running, changes = start, []
    for index, backlog in enumerate(backlogs):
        change = scaling.decide(index * step, running, backlog)
        if change is not None:
            running = change.to
            changes.append((index * step, change))
    return changes


def test_grows_when_size_and_age_keep_growing_and_says_so() -> None:
    [(at, change)] = run(Scaling(1, 2), [Backlog(4_000, 2.0), Backlog(8_000, 4.1), Backlog(12_400, 6.2)])
    assert at == 2.0
    assert change == Change(2, "12,400 messages wait, the oldest for 6.2 s, and both are growing")


def test_one_high_look_is_not_a_trend() -> None:
    assert run(Scaling(1, 4), [NOTHING, Backlog(HUGE, 60.0), NOTHING, NOTHING]) == []


def test_a_backlog_that_drains_fast_enough_is_left_alone() -> None:
    falling = [Backlog(10_000 - 2_000 * step, 5.0 + step) for step in range(5)]
    assert run(Scaling(1, 4), falling) == []


def test_a_backlog_that_drains_too_slowly_gets_another_worker() -> None:
    falling = [Backlog(1_000_000 - 1_000 * step, 60.0) for step in range(3)]
    [(_, change)] = run(Scaling(1, 4), falling)
    assert change.why.endswith("and draining them would take 998 s more")


def test_few_messages_that_wait_long_count_as_a_backlog() -> None:
    [(_, change)] = run(Scaling(1, 2), [Backlog(1, 2.0 + step) for step in range(3)])
    assert change == Change(2, "1 message waits, for 4.0 s, and their age is growing")


def test_after_a_change_the_new_worker_gets_time_to_show() -> None:
    changes = run(Scaling(1, 9, settle=5.0), [Backlog(2_000 * (step + 1), 3.0 + step) for step in range(16)])
    assert [at for at, _ in changes] == [5.0, 10.0, 15.0]


def test_retires_one_at_a_time_after_it_stayed_small() -> None:
    changes = run(Scaling(1, 3, shrink_after=30.0), [NOTHING] * 100, start=3)
    assert [(at, change.to) for at, change in changes] == [(30.0, 2), (60.0, 1)]
    assert changes[0][1].why == "the backlog has been small for 30 s"


def test_between_the_bounds_nothing_changes() -> None:
    middling = [Backlog(500, 0.5)] * 200
    assert run(Scaling(1, 4), middling, start=2) == []


def test_a_retirement_that_was_too_early_makes_the_next_one_later() -> None:
    scaling = Scaling(1, 2, shrink_after=10.0)
    surge = [Backlog(5_000 * (step + 1), 5.0 + step) for step in range(3)]
    changes = run(scaling, [NOTHING] * 11 + surge + [NOTHING] * 40, start=2)
    assert [change.to for _, change in changes] == [1, 2, 1]
    (first, _), (grown, _), (second, _) = changes
    assert first == 10.0
    assert second - grown >= 20.0


@pytest.mark.parametrize(("running", "to"), [(1, 2), (9, 4)])
def test_comes_back_inside_its_bounds_at_once(running: int, to: int) -> None:
    change = Scaling(2, 4).decide(0.0, running, NOTHING)
    assert change is not None
    assert change.to == to


@pytest.mark.parametrize(
    "wrong",
    [{"low": 0}, {"low": 3}, {"grow_age": 0.0}, {"grow_messages": 0}, {"settle": 0.0}, {"shrink_after": -1.0}],
)
def test_refuses_nonsense_and_names_it(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Scaling(**{"low": 1, "high": 2, **wrong})  # type: ignore[arg-type]


BACKLOGS = st.lists(
    st.builds(Backlog, st.integers(0, 10**7), st.floats(0, 10**5)) | st.just(NOTHING), min_size=1, max_size=200
)


@given(BACKLOGS, st.integers(1, 4), st.integers(0, 6), st.floats(0.1, 60))
def test_every_change_is_one_step_inside_the_bounds_and_for_cause(
    backlogs: list[Backlog], low: int, more: int, step: float
) -> None:
    scaling = Scaling(low, low + more)
    running = low
    for index, backlog in enumerate(backlogs):
        change = scaling.decide(index * step, running, backlog)
        if change is None:
            continue
        assert abs(change.to - running) == 1
        assert low <= change.to <= low + more
        large = backlog.messages > 1_000 or backlog.oldest > 1.0
        small = backlog.messages <= 100 and backlog.oldest <= 0.1
        assert large if change.to > running else small
        running = change.to


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0.2, 5))
def test_reaches_high_while_it_grows_and_low_again_when_it_is_gone(low: int, more: int, step: float) -> None:
    high = low + more
    scaling = Scaling(low, high)
    running, index = low, 0
    while running < high:
        change = scaling.decide(index * step, running, Backlog(2_000 + 50 * index, 2.0 + index))
        running = change.to if change else running
        index += 1
        assert index * step < 100 * more
    while running > low:
        change = scaling.decide(index * step, running, NOTHING)
        running = change.to if change else running
        index += 1
        assert index * step < 10_000 * more
