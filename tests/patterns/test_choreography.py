"""Choreographed sagas: whatever order events come in, the same end; what is stuck is noticed, what is early waits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from long_running import SETTINGS, in_loop, running, until, url

from eventmill import App, ConfigurationError, Event
from eventmill.patterns.saga.instance import Instance, State
from eventmill.patterns.saga.listening import Plot, heard

__all__ = ["url"]


class ChoPlaced(Event, name="chotest.placed", key="order"):
    order: str


class ChoReserved(Event, name="chostock.reserved", key="order"):
    order: str


class ChoPaid(Event, name="chomoney.paid", key="order"):
    order: str


class ChoDeclined(Event, name="chomoney.declined", key="order"):
    order: str


class ChoShipped(Event, name="chotest.shipped", key="order"):
    order: str


class ChoReleased(Event, name="chostock.released", key="order"):
    order: str


PLOT = Plot(frozenset("s"), frozenset("c"), frozenset("t"), frozenset("f"), 1_000, 500)


def listen(events: Sequence[str]) -> Instance:
    instance = Instance(
        saga="shop.cho", key="k", id="1", queue="q", topic="t", version=1, digest="d", state=State.EARLY, started_at=0
    )
    for number, event in enumerate(events):
        heard(PLOT, instance, event, event, b"{}", number)
        heard(PLOT, instance, event, event, b"{}", number)
    return instance


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ("sabc", State.COMPLETED),
        ("satf", State.COMPENSATED),
        ("sat", State.COMPENSATING),
        ("sab", State.RUNNING),
        ("abc", State.EARLY),
        ("sabcf", State.NEEDS_ATTENTION),
        ("sabct", State.NEEDS_ATTENTION),
    ],
)
def test_every_order_and_every_repeat_has_the_same_end(events: str, state: State) -> None:
    for order in permutations(events):
        found = listen(order)
        assert found.state is state, order
        assert sorted(found.seen) == sorted(events)


def make(url: str, **options: Any) -> App:
    app = App(url, name="shop", settings=SETTINGS)
    app.choreography(
        "flow", key="order", starts=ChoPlaced, completes=[ChoPaid, ChoShipped], turns=ChoDeclined, fails=ChoReleased,
        events=ChoReserved, **{"deadline": 20.0, **options},
    )  # fmt: skip
    return app


async def standing(app: App, order: str, state: str) -> Instance:
    async def look() -> Instance | None:
        found = await app.choreographies("flow").show(order)
        return found if found is not None and found.state == state else None

    found: Instance = await until(look)
    return found


@in_loop
async def test_one_history_of_what_many_services_say(url: str) -> None:
    app = make(url)
    async with running(app):
        await app.publish(ChoShipped("a"), ChoReserved("a"), ChoDeclined("b"))
        await standing(app, "a", "EARLY")
        await app.publish(ChoPlaced("a"), ChoPlaced("b"), ChoPaid("a"))
        found = await standing(app, "a", "COMPLETED")
        assert {entry.detail for entry in found.timeline if entry.what == "event"} == {
            "chotest.placed", "chostock.reserved", "chomoney.paid", "chotest.shipped"
        }  # fmt: skip
        assert (await standing(app, "b", "COMPENSATING")).reason == "chomoney.declined"
        await app.publish(ChoReleased("b"))
        await standing(app, "b", "COMPENSATED")


@in_loop
async def test_what_is_stuck_or_never_began_is_noticed(url: str) -> None:
    app = make(url, deadline=0.3, early=0.3)
    async with running(app):
        await app.publish(ChoPlaced("a"), ChoPaid("a"), ChoPaid("b"))
        assert "chotest.shipped" in (await standing(app, "a", "NEEDS_ATTENTION")).reason
        assert "none that starts it" in (await standing(app, "b", "NEEDS_ATTENTION")).reason
        flow = app.choreographies("flow")
        with pytest.raises(ConfigurationError, match="choreographed"):
            await flow.operate("cancel", "a", by="ada", why="so")
        await flow.operate("retry", "a", by="ada")
        await standing(app, "a", "RUNNING")
        await standing(app, "a", "NEEDS_ATTENTION")
        await app.publish(ChoShipped("a"))
        await standing(app, "a", "COMPLETED")
        await flow.operate("resolve", "b", by="ada", why="a test order", outcome="failed")
        found = await standing(app, "b", "COMPENSATED")
        ended = [each.key.rpartition("/")[2] for each in await app.store.documents("saga-ended/")]
        assert "b" in ended, "so that it is removed when its time is over"
        assert ("operator.resolve", "ada") in [(entry.what, entry.by) for entry in found.timeline]


def test_what_makes_no_sense_is_refused() -> None:
    for options, why in (
        ({"deadline": 0}, "deadline=0"), ({"completes": ()}, "which completes="), ({"fails": ChoPaid}, "cannot mean both"),
        ({"key": "nobody"}, "no field 'nobody'"),
    ):  # fmt: skip
        whole: dict[str, Any] = {"key": "order", "starts": ChoPlaced, "completes": ChoPaid, "deadline": 1.0, **options}
        with pytest.raises(ConfigurationError, match=why):
            App("memory://", name="shop").choreography("flow", **whole)
