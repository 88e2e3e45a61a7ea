"""What is easily got wrong: states that entities would share, repeats after the end of a stream, calls that mean nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eventmill import (
    ABSENT,
    ANY,
    Aggregate,
    App,
    ConfigurationError,
    Decider,
    Event,
    Query,
    StreamClosedError,
    WrongExpectedVersionError,
)


class Moved(Event, name="mover.moved", tags=("street",)):
    street: str


class Listed(Event, name="lister.listed", key="entry", tags=("entry",)):
    entry: str


@dataclass
class Address:
    street: str = ""


class Mover(Aggregate, name="mover"):
    address: Address = Address()

    def move(self, street: str) -> Iterator[Event]:
        yield Moved(street)

    def evolve(self, event: Moved) -> None:
        match event:
            case Moved(street=street):
                self.address.street += street


class Other(Aggregate, name="mover.other", topic="mover"):
    def move(self, street: str) -> Iterator[Event]:
        yield Moved(street)

    def evolve(self, event: Moved) -> None:
        match event:
            case Moved():
                pass


def listed(state: list[str], entry: str) -> Iterator[Event]:
    yield Listed(entry)


def onto(state: list[str], event: Listed) -> list[str]:
    match event:
        case Listed(entry=entry):
            state.append(entry)
    return state


LISTER = Decider("lister", ["first"], listed, onto)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'edges.db'}"


def run(url: str, case: Callable[[App], Awaitable[None]]) -> None:
    """Run a case; whatever went wrong in the loop behind the calls counts, too."""
    behind: list[dict[str, Any]] = []

    async def whole() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: behind.append(what))
        async with App(url, name="edges") as app:
            await asyncio.wait_for(case(app), 60)

    asyncio.run(whole())
    assert behind == []


def test_entities_share_no_state() -> None:
    """A default or beginning that the fold changes in place is each entity's own."""

    async def case(app: App) -> None:
        for id_ in ("a", "b"):
            await app.execute(Mover, id_, Mover.move, id_)
            await app.execute(LISTER, id_, id_)
        for id_, street in (("a", "a"), ("b", "b"), ("c", "")):
            assert (await app.load(Mover, id_)).address == Address(street)
            assert (await app.load(LISTER, id_)).state == ["first", *street]

    run("memory://", case)


def test_a_decision_begins_anew_each_time() -> None:
    async def case(app: App) -> None:
        await app.publish(Listed("x"))
        queries = [Query(tags=frozenset({"entry:x"}))]
        initial: list[str] = []
        for _ in range(2):
            assert (await app.decision(*queries, initial=initial, evolve=onto)).state == ["x"]
        assert initial == []

    run("memory://", case)


def test_a_condition_alone(url: str) -> None:
    """Nothing is written, nothing goes wrong behind it, and what follows on the same connection succeeds."""

    async def case(app: App) -> None:
        assert (await app.append("mover/a", expected=ABSENT)).positions == ()
        assert (await app.append("mover/a", Moved("a"), expected=ABSENT)).version == 1
        found = await asyncio.gather(
            *(app.append("mover/a", expected=1) for _ in range(5)),
            *(app.append("mover/b", Moved("b")) for _ in range(5)),
        )
        assert [each.version for each in found] == [1] * 5 + [1, 2, 3, 4, 5]

    run(url, case)


def test_a_repeat_after_the_end(url: str) -> None:
    """What was stored before a stream was closed is told to whoever asks again; nothing new is."""

    async def case(app: App) -> None:
        await app.append("mover/a", Moved("x"))
        first = await app.append("mover/a", Moved("a"), Moved("b"), ids=["one", "two"])
        await app.tombstone("mover/a")
        again = await app.append("mover/a", Moved("a"), Moved("b"), ids=["one", "two"])
        assert (again.repeated, again.version, list(again.positions)) == (True, 3, list(first.positions))
        for ids in (["two", "three"], ["three", "four"], []):
            with pytest.raises(StreamClosedError):
                await app.append("mover/a", Moved("a"), Moved("b"), ids=ids)

    run(url, case)


def test_a_part_of_a_repeat_says_so(url: str) -> None:
    async def case(app: App) -> None:
        await app.append("mover/a", Moved("a"), Moved("b"), ids=["one", "two"])
        with pytest.raises(
            WrongExpectedVersionError, match="stored already are two, but this call has two, three"
        ) as told:
            await app.append("mover/a", Moved("b"), Moved("c"), ids=["two", "three"])
        assert (told.value.expected, told.value.actual) == (ANY, 2)

    run(url, case)


def test_calls_that_mean_nothing() -> None:
    async def case(app: App) -> None:
        calls: list[tuple[Callable[[], Awaitable[object]], str]] = [
            (lambda: app.append("mover/a", Moved("a"), Moved("b"), ids=["one", "one"]), "same"),
            (lambda: app.append("mover/a", Moved("a"), Moved("b"), ids="ab"), "list"),
            (lambda: app.append("mover/a", Moved("a"), expected=-2), "ABSENT"),
            (lambda: app.append("mover/a", Moved("a"), expected=None), "ABSENT"),  # type: ignore[arg-type]
            (lambda: app.read("mover/a", limit=-1), "limit=-1"),
            (lambda: app.read("mover/a", after=-1), "after=-1"),
            (lambda: app.describe("mover/a", [1]), "dict"),  # type: ignore[arg-type]
            (lambda: app.describe("mover/a", {"a": object()}), "dict"),
            (lambda: app.load(Mover(), "a"), "not an instance"),  # type: ignore[call-overload]
            (lambda: app.execute(Other, "a", Mover.move, "x"), r"Mover\.move is no command of Other"),
        ]
        for call, text in calls:
            with pytest.raises(ConfigurationError, match=text):
                await call()
        assert await app.metadata("mover/a") == {}
        assert not await app.read("mover/a")

    run("memory://", case)
