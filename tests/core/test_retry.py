from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core.errors import ConfigurationError, DecodeError
from eventmill.core.outcome import DeadLetter, Retry
from eventmill.core.retry import NO_RETRY, RetryPolicy, exponential, fixed, schedule

OOPS = ValueError("oops")
draws = st.floats(0, 1, exclude_max=True)


def waits(policy: RetryPolicy, draw: float = 0.5) -> list[float]:
    """The delays until the message is given up."""
    found: list[float] = []
    while isinstance(outcome := policy.decide(len(found) + 1, OOPS, 0.0, draw), Retry):
        found.append(outcome.after)
    return found


def test_delays_by_attempt() -> None:
    assert waits(fixed(3.0, attempts=4)) == [3.0] * 3
    assert waits(schedule(1.0, 60.0, 3600.0)) == [1.0, 60.0, 3600.0]
    assert waits(exponential(1.0, factor=3.0, cap=20.0, attempts=6)) == [1.0, 3.0, 9.0, 20.0, 20.0]
    assert waits(RetryPolicy(attempts=5, delays=(1.0, 2.0), jitter=0)) == [1.0, 2.0, 2.0, 2.0]
    assert waits(exponential(attempts=1)) == waits(NO_RETRY) == waits(schedule()) == []


def test_extreme_growth_neither_overflows_nor_takes_memory() -> None:
    assert waits(exponential(1.0, factor=1e300, attempts=70)) == [1.0] + [300.0] * 68
    assert exponential(1.0, factor=1.0, attempts=10**9).delays == (1.0,)
    assert exponential(0.0, attempts=10**9).delays == (0.0,)
    assert len(exponential(1.0, factor=1.0000001, attempts=10**9).delays) <= 1024


@given(st.integers(1, 30), st.floats(0, 1), draws)
def test_jitter_stays_within_its_share_and_attempts_end(attempts: int, jitter: float, draw: float) -> None:
    policy = exponential(1.0, cap=64.0, attempts=attempts, jitter=jitter)
    found = waits(policy, draw)
    assert len(found) == attempts - 1
    for step, delay in enumerate(found):
        plain = min(64.0, 2.0**step)
        assert plain * (1 - jitter) * 0.999999 <= delay <= plain * (1 + jitter) * 1.000001
    assert policy.decide(attempts, OOPS, 0.0, draw) == DeadLetter(f"failed {attempts} of {attempts} attempts")


def test_a_message_is_not_tried_past_its_maximum_age() -> None:
    policy = fixed(10.0, attempts=100, max_age=60.0)
    assert policy.decide(1, OOPS, 50.0, 0.5) == Retry(10.0)
    assert policy.decide(1, OOPS, 50.1, 0.5) == DeadLetter("older than 60 s at its next attempt")


def test_only_and_never_choose_by_exception() -> None:
    policy = RetryPolicy(only=(OSError,), never=(FileNotFoundError,))
    assert isinstance(policy.decide(1, ConnectionError(), 0.0, 0.5), Retry)
    assert policy.decide(1, FileNotFoundError(), 0.0, 0.5) == DeadLetter("FileNotFoundError is not retried")
    assert policy.decide(1, OOPS, 0.0, 0.5) == DeadLetter("ValueError is not retried")
    assert RetryPolicy().decide(1, DecodeError("x"), 0.0, 0.5) == DeadLetter("DecodeError is not retried")


def test_an_exception_may_have_a_policy_of_its_own() -> None:
    policy = RetryPolicy(attempts=1, delays=(), by_error={TimeoutError: fixed(9.0), OSError: fixed(1.0)})
    assert policy.decide(1, TimeoutError(), 0.0, 0.5) == Retry(9.0)
    assert policy.decide(1, ConnectionError(), 0.0, 0.5) == Retry(1.0)
    assert isinstance(policy.decide(1, OOPS, 0.0, 0.5), DeadLetter)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"attempts": 0}, "attempts"),
        ({"delays": ()}, "delays"),
        ({"delays": (1.0, -1.0)}, "delays"),
        ({"delays": (nan,)}, "delays"),
        ({"delays": (inf,)}, "delays"),
        ({"jitter": 1.1}, "jitter"),
        ({"jitter": nan}, "jitter"),
        ({"max_age": 0.0}, "max_age"),
        ({"max_age": nan}, "max_age"),
    ],
)
def test_wrong_settings_are_refused_with_the_field(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError, match=field):
        RetryPolicy(**settings)


@pytest.mark.parametrize("settings", [{"first": -1.0}, {"factor": 0.5}, {"cap": 0.1}, {"first": nan}, {"cap": inf}])
def test_wrong_growth_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="first="):
        exponential(**settings)  # type: ignore[arg-type]
