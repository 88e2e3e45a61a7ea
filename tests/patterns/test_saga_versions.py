"""Version 2 of a saga over instances stopped in every state of version 1: each goes on, or the start is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from long_running import SETTINGS, in_loop, running, until, url

from eventmill import NO_RETRY, App, ConfigurationError, DeadLetter, Event, StepContext, Transaction
from eventmill.patterns.saga.decide import Run, begun, done, ended, following
from eventmill.patterns.saga.definition import Saga
from eventmill.patterns.saga.instance import Entry, Instance, State
from eventmill.patterns.saga.shape import Shape, StepShape
from eventmill.patterns.saga.versions import moved

__all__ = ["url"]


class VersionPlaced(Event, name="sagaversion.placed", key="order"):
    order: str
    stops_at: str = ""


class VersionGo(Event, name="sagaversion.go", key="order"):
    order: str


def app_of(url: str) -> App:
    app = App(url, name="shop", settings=SETTINGS)
    line = "bigserial" if url.startswith("postgres") else "integer"

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute(f"CREATE TABLE IF NOT EXISTS ledger (line {line} PRIMARY KEY, order_id text, what text)")

    return app


async def ledger(app: App, order: str) -> list[str]:
    async with app.transaction() as tx:
        return [w for (w,) in await tx.execute("SELECT what FROM ledger WHERE order_id = ? ORDER BY line", (order,))]


Step = Callable[..., Awaitable[Any]]


def declare(app: App, version: int, names: Sequence[str], *, waits: Sequence[str] = (), **options: Any) -> Saga:
    """Steps that write their version and name; those that wait need an answer; `undo` fails where the order says so."""
    saga = app.saga("checkout", key="order", starts_on=VersionPlaced, version=version, **options)

    def add(name: str) -> None:
        async def undo(event: VersionPlaced, tx: Transaction, ctx: StepContext) -> DeadLetter | None:
            if event.stops_at == f"undo {name}":
                return DeadLetter("stuck")
            await tx.execute(
                "INSERT INTO ledger (order_id, what) VALUES (?, ?)", (event.order, f"{version} undo {name}")
            )
            return None

        async def run(event: VersionPlaced, tx: Transaction) -> DeadLetter | None:
            if event.stops_at == f"fail {name}" or (event.stops_at.startswith("undo") and name == names[-1]):
                return DeadLetter("no")
            await tx.execute("INSERT INTO ledger (order_id, what) VALUES (?, ?)", (event.order, f"{version} {name}"))
            return None

        saga.step(name=name, compensate=undo, retry=NO_RETRY, done_on=VersionGo if name in waits else ())(run)

    for name in names:
        add(name)
    return saga


ONE = ("reserve", "pay", "ship")
STOPPED = {"waiting": "", "attention": "undo reserve", "completed": "", "compensated": "fail reserve"}
"""Orders, one in each state that an instance of version 1 can be left in."""


async def leave_in_every_state(url: str) -> None:
    app = app_of(url)
    declare(app, 1, ONE, waits=["pay"])
    async with running(app):
        await app.publish(*[VersionPlaced(order, stop) for order, stop in STOPPED.items()])
        await until(lambda: resting(app, {"waiting", "attention", "completed"}))
        await app.publish(VersionGo("attention"), VersionGo("completed"))
        states = await until(lambda: standing(app))
    assert states == {
        "waiting": "RUNNING", "attention": "NEEDS_ATTENTION", "completed": "COMPLETED", "compensated": "COMPENSATED"
    }  # fmt: skip


async def resting(app: App, orders: set[str]) -> bool:
    there = {i.key for i in [each async for each in app.sagas("checkout").instances()] if len(i.steps) == 2}
    return orders <= there


async def standing(app: App) -> dict[str, str] | None:
    instances = [each async for each in app.sagas("checkout").instances()]
    found = {each.key: str(each.state) for each in instances}
    resting = not any(each.driver or each.state == "COMPENSATING" for each in instances)
    return found if resting and list(found.values()).count("RUNNING") == 1 and len(found) == 4 else None


async def finish(app: App) -> dict[str, str]:
    """Let everything go on to its end; returns where each has ended."""
    async with running(app):
        sagas = app.sagas("checkout")
        await app.publish(VersionGo("waiting"))
        await sagas.operate("skip", "attention", by="ada", why="seen to")

        async def all_over() -> dict[str, str] | None:
            found = [each async for each in sagas.instances()]
            return {i.key: str(i.state) for i in found} if all(i.ended for i in found) else None

        states: dict[str, str] = await until(all_over)
        return states


ENDS = {"waiting": "COMPLETED", "attention": "COMPENSATED", "completed": "COMPLETED", "compensated": "COMPENSATED"}


@in_loop
async def test_the_old_version_goes_on_beside_the_new_one(url: str) -> None:
    await leave_in_every_state(url)
    app = app_of(url)
    declare(app, 1, ONE, waits=["pay"])
    declare(app, 2, ("check", "reserve", "pay", "ship"), waits=["pay"])
    assert await finish(app) == ENDS
    app = app_of(url)
    declare(app, 2, ("check", "reserve", "pay", "ship"), waits=["pay"])
    async with running(app):
        await app.publish(VersionPlaced("new"))
        await until(lambda: _wrote(app, "new", ["2 check", "2 reserve", "2 pay"]))
        assert await ledger(app, "waiting") == ["1 reserve", "1 pay", "1 ship"]


async def _wrote(app: App, order: str, what: list[str]) -> bool:
    return await ledger(app, order) == what


@in_loop
async def test_a_version_takes_over_by_the_names_of_the_steps(url: str) -> None:
    await leave_in_every_state(url)
    app = app_of(url)
    declare(app, 2, ("reserve", "charge", "ship", "tell"), waits=["charge"], migrate={1: {"pay": "charge"}})
    assert await finish(app) == ENDS
    assert await ledger(app, "waiting") == ["1 reserve", "1 pay", "2 ship", "2 tell"]
    found = await app.sagas("checkout").show("waiting")
    assert found is not None
    assert [step.name for step in found.steps] == ["reserve", "charge", "ship", "tell"]
    assert "migrated" in [entry.what for entry in found.timeline]
    await app.close()


@in_loop
async def test_what_an_old_process_begins_during_a_deployment_is_taken_over(url: str) -> None:
    old, new = app_of(url), app_of(url)
    declare(old, 1, ONE, waits=["pay"])
    declare(new, 2, ("reserve", "charge", "ship", "tell"), waits=["charge"], migrate={1: {"pay": "charge"}})
    async with running(old):
        await new.open()  # from here on it knows nothing in flight of version 1
        await old.publish(VersionPlaced("late"), VersionPlaced("over", "fail reserve"))
        await until(lambda: _begun(old, "late", "over"))
    async with running(new):
        # An answer that comes after the end is of no use, and holds up nobody.
        await new.publish(VersionGo("late"), VersionGo("over"))

        async def over() -> bool:
            found = await new.sagas("checkout").show("late")
            tried = [job for job in await new.store.jobs() if job.attempts or job.message.type == "sagaversion.go"]
            return found is not None and found.ended and not tried

        await until(over)
        assert await ledger(new, "late") == ["1 reserve", "1 pay", "2 ship", "2 tell"]


async def _begun(app: App, waiting: str, over: str) -> bool:
    first, second = [await app.sagas("checkout").show(key) for key in (waiting, over)]
    return first is not None and second is not None and len(first.steps) == 2 and not first.driver and second.ended


@pytest.mark.parametrize(
    ("names", "waits", "migrate", "why"),
    [
        (("reserve", "pay", "ship", "tell"), ("pay",), None, "version 1 is not declared any more"),
        (("reserve", "charge", "ship"), ("charge",), {1: {}}, "'pay', of which version 2 has none"),
        (("reserve", "check", "pay", "ship"), ("pay",), {1: {}}, "past the place of step 'check'"),
        (("reserve", "pay", "ship"), (), {1: {}}, "not both commands"),
    ],
)
@in_loop
async def test_what_does_not_fit_is_refused_with_the_list(
    url: str, names: Sequence[str], waits: Sequence[str], migrate: Any, why: str
) -> None:
    await leave_in_every_state(url)
    app = app_of(url)
    declare(app, 2, names, waits=waits, **({"migrate": migrate} if migrate else {}))
    with pytest.raises(ConfigurationError, match="in flight") as refused:
        await app.open()
    assert "waiting (RUNNING)" in str(refused.value)
    assert "completed" not in str(refused.value)
    assert why in str(refused.value)
    old = app_of(url)
    declare(old, 1, ONE, waits=["pay"])
    assert await finish(old) == ENDS


@in_loop
async def test_steps_that_were_changed_under_their_number_are_refused(url: str) -> None:
    await leave_in_every_state(url)
    app = app_of(url)
    declare(app, 1, (*ONE, "tell"), waits=["pay"])
    with pytest.raises(ConfigurationError, match="version 1 was changed"):
        await app.open()


@in_loop
async def test_nothing_in_flight_needs_no_old_version(url: str) -> None:
    app = app_of(url)
    declare(app, 1, ("reserve",))
    async with running(app):
        await app.publish(VersionPlaced("a"))
        await until(lambda: _wrote(app, "a", ["1 reserve"]))

        async def over() -> bool:
            found = await app.sagas("checkout").show("a")
            return found is not None and found.ended

        await until(over)
    newer = app_of(url)
    declare(newer, 2, ("else",))
    async with running(newer):
        await newer.publish(VersionPlaced("b"))
        await until(lambda: _wrote(newer, "b", ["2 else"]))


@pytest.mark.parametrize("stopped", range(4))
def test_a_migrated_instance_goes_on_behind_what_it_has_done(stopped: int) -> None:
    """Without a store: stopped after each number of steps, and a step put in at each place."""
    old = Shape()
    for name in ("a", "b", "c"):
        old = old.with_step(StepShape(name=name, undone=True))
    for place in range(4):
        names = ["a", "b", "c"]
        names.insert(place, "new")
        instance = Instance(
            saga="s",
            key="k",
            id="1",
            queue="s",
            topic="t",
            version=1,
            digest=old.digest,
            state=State.RUNNING,
            started_at=0,
        )
        for step in old.steps[:stopped]:
            begun(instance, step, 1)
            done(instance, step, 1)
        target = _Target(names)
        instance.note(Entry(1, "started"))
        problem = moved(instance, old, target, {})  # type: ignore[arg-type]
        if place < stopped:
            assert problem is not None
            assert instance.version == 1
            continue
        assert problem is None
        went = []
        while isinstance(do := following(target.shape, instance, 2), Run):
            went.append(do.step.name)
            begun(instance, do.step, 2)
            done(instance, do.step, 2)
        assert went == names[stopped:]
        ended(instance, State.COMPLETED, 3)


class _Target:
    version = 2

    def __init__(self, names: Sequence[str]) -> None:
        self.shape = Shape()
        for name in names:
            self.shape = self.shape.with_step(StepShape(name=name, undone=True))
