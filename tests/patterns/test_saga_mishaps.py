"""Sagas and aggregators that are declared wrongly, and steps whose functions give what they may not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from long_running import SETTINGS, until

from eventmill import App, ConfigurationError, DeadLetter, Event, StepContext, UnknownEventError, fixed, tumbling
from eventmill.core.errors import EventmillError
from eventmill.patterns.saga import family
from eventmill.patterns.saga.instance import Instance

QUICK = fixed(0.01, attempts=2)


class MishapPlaced(Event, name="mishap.placed", key="order"):
    order: str


class MishapDone(Event, name="mishap.done", key="order"):
    order: str


async def well(order: MishapPlaced) -> None: ...


async def undone(order: MishapPlaced, ctx: StepContext) -> None: ...


async def number(order: MishapPlaced) -> Any:
    return 5


async def failing(order: MishapPlaced) -> None:
    raise ValueError("it fails")


async def hopeless(order: MishapPlaced) -> DeadLetter:
    return DeadLetter("hopeless")


def raising(order: MishapPlaced) -> list[str]:
    raise KeyError("seat")


Steps = list[tuple[Any, dict[str, Any]]]


@pytest.mark.parametrize(
    ("steps", "state", "why"),
    [
        ([(number, {})], "COMPENSATED", "a step returned int"),
        ([(well, {"compensate": number}), (failing, {})], "NEEDS_ATTENTION", "a step returned int"),
        ([(well, {"locks": raising})], "COMPENSATED", "KeyError: 'seat'"),
        ([(well, {"locks": lambda order: None})], "COMPENSATED", "a list of names"),
        ([(well, {"locks": lambda order: "seat"})], "COMPENSATED", "a list of names"),
        ([(well, {"locks": lambda order: [7]})], "COMPENSATED", "a name is a text"),
        ([(well, {"locks": lambda order: ["a\x00b"]})], "COMPENSATED", "a name is a text"),
    ],
)
def test_what_a_function_gives_wrongly_is_a_failure_of_its_step(steps: Steps, state: str, why: str) -> None:
    async def case() -> None:
        app = App("memory://", name="shop", settings=SETTINGS)
        declared(app, steps)
        async with app:
            await app.publish(MishapPlaced("A"))
            found = await ending(app)
            assert found.state == state
            assert why in "".join(entry.detail for entry in found.timeline)

    asyncio.run(asyncio.wait_for(case(), 60))


def declared(app: App, steps: Steps, **options: Any) -> None:
    saga = app.saga("mishap", key="order", starts_on=MishapPlaced, **options)
    for place, (function, more) in enumerate(steps):
        saga.step(name=f"s{place}", **{"retry": QUICK, "undo_retry": QUICK, **more})(function)


async def ending(app: App) -> Instance:
    """Let the App run until the instance has ended or needs a person."""
    task = asyncio.create_task(app.run())

    async def resting() -> Instance | None:
        found = await app.sagas("mishap").show("A")
        return found if found is not None and (found.ended or found.state == "NEEDS_ATTENTION") else None

    try:
        found: Instance = await until(resting)
        return found
    finally:
        app.stop()
        await task


def test_an_operator_cannot_turn_back_what_is_past_its_pivot() -> None:
    async def case() -> None:
        app = App("memory://", name="shop", settings=SETTINGS)
        declared(app, [(well, {"compensate": undone}), (well, {"kind": "pivot"}), (hopeless, {"kind": "retriable"})])
        async with app:
            await app.publish(MishapPlaced("A"))
            assert (await ending(app)).state == "NEEDS_ATTENTION"
            with pytest.raises(ConfigurationError, match="past its point of no return"):
                await app.sagas("mishap").operate("resolve", "A", by="ada", why="gone", outcome="failed")
            found = await app.sagas("mishap").operate("resolve", "A", by="ada", why="sent by hand")
            assert found.state == "RUNNING"

    asyncio.run(asyncio.wait_for(case(), 60))


def test_a_compensation_seen_to_by_hand_counts_as_undone() -> None:
    async def case() -> None:
        app = App("memory://", name="shop", settings=SETTINGS)
        declared(app, [(well, {"compensate": hopeless}), (failing, {})])
        async with app:
            await app.publish(MishapPlaced("A"))
            assert (await ending(app)).state == "NEEDS_ATTENTION"
            with pytest.raises(ConfigurationError, match="skip it"):
                await app.sagas("mishap").operate("resolve", "A", by="ada", why="gone", outcome="failed")
            with pytest.raises(ConfigurationError, match="'done' or 'failed'"):
                await app.sagas("mishap").operate("resolve", "A", by="ada", why="gone", outcome="perhaps")

    asyncio.run(asyncio.wait_for(case(), 60))


def test_an_event_that_no_instance_can_be_begun_by_is_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(family.PATIENCE.by_error, family.UnusableEventError, QUICK)  # type: ignore[arg-type]

    async def case() -> None:
        app = App("memory://", name="shop", settings=SETTINGS)
        declared(app, [(well, {})], state=MishapDone, begin=lambda event: 1 / 0)
        async with app:
            await app.publish(MishapPlaced("A"))
            task = asyncio.create_task(app.run())

            async def dead() -> Any:
                return await app.store.jobs(state="dead")

            (job,) = await until(dead)
            assert "its first state cannot be made of mishap.placed: ZeroDivisionError" in job.errors[-1].error
            app.stop()
            await task

    asyncio.run(asyncio.wait_for(case(), 60))


def saga(app: Any, **options: Any) -> Any:
    return app.saga("wrong", **{"key": "order", "starts_on": MishapPlaced, **options})


def aggregator(app: Any, **options: Any) -> Any:
    return app.aggregator("wrong", **{"key": "order", "events": [MishapPlaced], "count": 2, **options})


async def later(group: Any) -> None: ...


@pytest.mark.parametrize(
    ("declare", "remedy"),
    [
        (lambda app: saga(app, starts_on="mishap.placed"), "give the class"),
        (lambda app: saga(app, version="1"), "whole number"),
        (lambda app: saga(app, deadline="1"), "seconds as a number"),
        (lambda app: saga(app, migrate=[1]), "old_version"),
        (lambda app: saga(app, migrate={1: ["a"]}), "old_name"),
        (lambda app: saga(app).step(well), "with parentheses"),
        (lambda app: saga(app).step(retry=3)(well), "give a policy"),
        (lambda app: saga(app).step(timeout="3")(well), "seconds as a number"),
        (lambda app: saga(app).step(locks=["seat"])(well), "a function of the state"),
        (lambda app: saga(app).step(parallel=1)(well), "the same label"),
        (lambda app: saga(app).step(name="a\nb")(well), "can be printed"),
        (lambda app: saga(app).step(done_on=MishapPlaced)(well), "starts the saga"),
        (lambda app: saga(app).step(done_on="x")(well), "give the class"),
        (
            lambda app: app.choreography("wrong", key="order", starts=MishapPlaced, completes=MishapDone, deadline="5"),
            "seconds as a number",
        ),
        (lambda app: aggregator(app, count="2"), "whole number"),
        (lambda app: aggregator(app, timeout="2"), "seconds as a number"),
        (lambda app: aggregator(app, window=60, time="event"), "tumbling"),
        (lambda app: aggregator(app, window=tumbling(60), time="now"), "'event' or 'processing'"),
        (lambda app: aggregator(app, window=tumbling(60), time="processing", grace=3), "leave it out"),
        (lambda app: aggregator(app, until="x"), "a function"),
        (lambda app: aggregator(app, until=later), "plain `def`"),
        (lambda app: aggregator(app, incomplete=later), "plain `def`"),
        (lambda app: aggregator(app, events=MishapPlaced), r"\[MishapPlaced\]"),
        (lambda app: aggregator(app)(None), "no function"),
        (lambda app: tumbling("5"), "seconds as a number"),  # type: ignore[arg-type]
    ],
)
def test_what_is_declared_wrongly_is_refused_with_the_remedy(declare: Callable[[Any], Any], remedy: str) -> None:
    with pytest.raises(EventmillError, match=remedy) as refused:
        declare(App("memory://", name="shop"))
    assert isinstance(refused.value, ConfigurationError | UnknownEventError)
