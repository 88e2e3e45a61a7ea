"""The testing kit: what passes, and that what should fail does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import strategies as st
from purses import COINS, Coins, Purse, PurseEmptied, PurseFilled, PurseOpened, Refused, SnappedPurse

from eventmill import Aggregate, ConfigurationError, Event
from eventmill.testing.history import call, history_test
from eventmill.testing.scenario import given

CALLS = [
    call(Purse.open, "ada"),
    call(Purse.fill, st.integers(0, 100)),
    call(Purse.empty, st.integers(0, 50), st.sampled_from(["", "bread"])),
    call(Purse.drain, st.integers(1, 50)),
]

test_purse_history = history_test(Purse, CALLS, refuses=Refused)
test_snapped_purse_history = history_test(SnappedPurse, CALLS, refuses=Refused)
test_coins_history = history_test(
    COINS, [call(st.builds(PurseFilled, st.integers(0, 9))), call(st.builds(PurseEmptied, st.integers(0, 9)))],
    refuses=Refused,
)  # fmt: skip


def test_given_when_then() -> None:
    given(Purse).when(Purse.open, "ada").then(PurseOpened("ada"))
    given(Purse, PurseOpened("ada")).when(Purse.open, "bob").then(Refused)
    given(Purse, PurseOpened("ada")).when(Purse.open, "bob").then(Refused("the purse is ada's"))
    given(Purse, PurseFilled(5)).when(Purse.drain, step=2).then(PurseEmptied(2), PurseEmptied(2)).returning(1)
    given(Purse, PurseFilled(5)).when(Purse.drain, 9).then().leaving(balance=5, owner="")
    given(Purse).when(Purse.fill, 3).when(Purse.empty, 1).then(PurseEmptied(1)).leaving(balance=2)
    scenario = given(COINS, PurseFilled(5)).when(PurseEmptied(3)).then(PurseEmptied(3)).returning(5)
    assert scenario.state == Coins(balance=2)
    given(COINS).when(PurseEmptied(3)).then(Refused)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: given(Purse).when(Purse.fill, 3).then(PurseFilled(4)),
        lambda: given(Purse).when(Purse.fill, 3).then(),
        lambda: given(Purse).when(Purse.fill, 3).then(Refused),
        lambda: given(Purse).when(Purse.empty, 3).then(PurseEmptied(3)),
        lambda: given(Purse).when(Purse.empty, 3).then(ValueError),
        lambda: given(Purse).when(Purse.empty, 3).then(Refused("another text")),
        lambda: given(Purse).when(Purse.empty, 3).when(Purse.fill, 3),
        lambda: given(Purse).when(Purse.empty, 3).returning(3),
        lambda: given(Purse).when(Purse.fill, 3).returning(4),
        lambda: given(Purse).when(Purse.fill, 3).leaving(balance=4),
        lambda: given(Purse).then(),
        lambda: given(Purse, PurseFilled("much")),  # type: ignore[arg-type]
    ],
)
def test_what_is_not_so_fails(wrong: object) -> None:
    with pytest.raises(AssertionError):
        wrong()  # type: ignore[operator]


class JarFilled(Event, name="jar.filled"):
    amount: int
    at: datetime | None = None


class Jar(Aggregate, name="jar"):
    amount: int = 0

    def fill(self, amount: int) -> Iterator[Event]:
        self.amount += 1  # what a command must not do
        yield JarFilled(amount)

    def drift(self) -> Iterator[Event]:
        drifting.append(0)
        yield JarFilled(len(drifting))

    def stale(self) -> Iterator[Event]:
        yield JarFilled(1.5)  # type: ignore[arg-type]

    def evolve(self, event: JarFilled) -> None:
        match event:
            case JarFilled(amount=amount):
                self.amount += amount


drifting: list[int] = []


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (call(Jar.fill, 1), "its facts only"),
        (call(Jar.drift), "decides differently"),
        (call(Jar.stale), "no store would take it"),
    ],
)
def test_the_property_finds(command: object, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        history_test(Jar, [command])()  # type: ignore[list-item]


def test_an_unforeseen_error_is_no_refusal() -> None:
    with pytest.raises(Refused):
        history_test(Purse, [call(Purse.empty, 1)])()
    with pytest.raises(ConfigurationError):
        history_test(Purse, [])
