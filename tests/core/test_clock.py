from __future__ import annotations

import asyncio
import random
import uuid
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmill.core import fork
from eventmill.core.clock import Ids, ManualClock, SystemClock


def test_sleepers_wake_at_their_own_moments_in_order() -> None:
    async def main() -> list[tuple[str, float]]:
        clock, woken = ManualClock(100.0), []

        async def sleeper(name: str, *naps: float) -> None:
            for nap in naps:
                await clock.sleep(nap)
                woken.append((name, clock.now()))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sleeper("twice", 2.0, 2.0))
            tasks.create_task(sleeper("late", 3.0))
            tasks.create_task(sleeper("at once", 0.0))
            cancelled = tasks.create_task(sleeper("never", 1.0))
            for _ in range(3):
                await asyncio.sleep(0)
            cancelled.cancel()
            await clock.advance(3.5)
            assert clock.now() == 103.5
            await clock.advance(0.5)
        return woken

    assert asyncio.run(main()) == [("at once", 100.0), ("twice", 102.0), ("late", 103.0), ("twice", 104.0)]


@given(st.lists(st.integers(-5, 5), max_size=50), st.integers(0, 2**32))
def test_ids_are_uuids_of_version_7_that_grow_even_when_the_clock_does_not(steps: list[int], seed: int) -> None:
    clock = ManualClock()
    ids = Ids(clock, random.Random(seed))
    made = [ids()]
    for step in steps:
        clock._now += step / 1000
        made.append(ids())
    for text in made:
        identity = uuid.UUID(text)
        assert str(identity) == text
        assert (identity.version, identity.variant) == (7, uuid.RFC_4122)
    assert all(first < second for first, second in pairwise(made))
    assert uuid.UUID(made[0]).int >> 80 == int(ManualClock().now() * 1000)


def test_ids_follow_from_their_seed() -> None:
    first, second = (Ids(ManualClock(), random.Random(7)) for _ in range(2))
    assert [first() for _ in range(5)] == [second() for _ in range(5)]
    assert Ids(ManualClock())() != Ids(ManualClock())()


def test_many_ids_of_one_millisecond_differ() -> None:
    class Highest(random.Random):
        def getrandbits(self, k: int, /) -> int:
            return (1 << k) - 1

    ids = Ids(ManualClock(), Highest())
    made = [ids() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert {len(text) for text in made} == {36}


def test_a_forked_child_makes_other_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = Ids(ManualClock(), random.Random(1))
    assert int(ids()[-12:], 16) + 1 == int(ids()[-12:], 16)
    parent = ids()
    monkeypatch.setattr(fork, "count", fork.count + 1)
    child = ids()
    assert child[:13] == parent[:13]
    assert int(child[-12:], 16) != int(parent[-12:], 16) + 1


def test_the_system_clock_goes_on() -> None:
    async def main() -> float:
        clock = SystemClock()
        before = clock.now()
        await clock.sleep(0.01)
        return clock.now() - before

    assert asyncio.run(main()) > 0


@pytest.mark.parametrize(
    ("server", "took", "expected"),
    [
        (1_000.05, 0.0, None),  # as near as clocks are
        (1_060.0, 0.02, 60.0),
        (940.0, 0.02, -60.0),
        (1_002.0, 8.0, None),  # the answer took too long to tell
    ],
)
def test_a_clock_follows_a_server_s(server: float, took: float, expected: float | None) -> None:
    clock = SystemClock()
    correction = clock.follow(server + took / 2 if expected is not None else server, 1_000.0, 1_000.0 + took)
    assert correction == (None if expected is None else pytest.approx(expected, abs=0.05))
    assert clock.now() - clock.machine() == pytest.approx(expected or 0.0, abs=0.05)
    if expected is not None:
        assert clock.follow(server + 1, 1_001.0, 1_001.02) is None, "it is followed already"
        assert clock.follow(1_002.0, 1_002.0, 1_002.0) == pytest.approx(-expected, abs=0.05), "it was set right"
