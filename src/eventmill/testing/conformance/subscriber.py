"""What must come true of a subscription, whatever store and broker it runs on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from eventmill.app import App
from eventmill.core.event import Event
from eventmill.core.message import Message
from eventmill.core.retry import NO_RETRY, fixed
from eventmill.runtime.handler import Context
from eventmill.runtime.transaction import Transaction
from eventmill.settings import Settings
from eventmill.testing.conformance.suite import Conformance, Stage, case

NAME = "conformance"
SETTINGS = Settings(lease=3.0, grace=10.0)
CREATE = "CREATE TABLE IF NOT EXISTS effects (place INTEGER PRIMARY KEY, reader TEXT, key TEXT, number INTEGER)"
INSERT = "INSERT INTO effects (reader, key, number) VALUES (?, ?, ?)"
SELECT = "SELECT reader, key, number FROM effects ORDER BY place"


class Step(Event, name="conformance.step", key="key"):
    key: str
    number: int


class Jump(Event, name="conformance.step.jump", key="key"):
    key: str
    number: int


class Rest(Event, name="conformance.rest", key="key"):
    key: str
    number: int


class Elsewhere(Event, name="elsewhere.step", key="key"):
    key: str
    number: int


class Effect(NamedTuple):
    """What one handling wrote, in the order of the commits."""

    reader: str
    key: str
    number: int


Effects = list[Effect]


async def effects(app: App) -> Effects:
    async with app.transaction() as tx:
        return [Effect(*row) for row in await tx.execute(SELECT)]


async def until(app: App, true: Callable[[Effects], bool], seconds: float = 30.0) -> Effects:
    """Wait until the effects are as expected; returns them."""
    for _ in range(int(seconds / 0.02)):
        found = await effects(app)
        if true(found):
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"still not so after {seconds:g} s: {len(found)} effects, the last are {found[-5:]}")


async def waiting(true: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if await true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"still not so after {seconds:g} s")


@asynccontextmanager
async def running(*apps: App) -> AsyncIterator[None]:
    """Let the Apps handle during the block; stop them in good order after it."""
    for app in apps:
        await app.open()
    tasks = [asyncio.create_task(app.run()) for app in apps]
    try:
        yield
    finally:
        for app in apps:
            app.stop()
        await asyncio.gather(*tasks)


def steps(keys: int, each: int, first: int = 0) -> list[Step]:
    """Keys in turn, the numbers of each growing."""
    return [Step(key=f"key{key}", number=number) for number in range(first, first + each) for key in range(keys)]


def in_order(found: Sequence[Effect], reader: str | None = None) -> dict[str, list[int]]:
    """The numbers handled for each key, in their order."""
    numbers: dict[str, list[int]] = {}
    for effect in found:
        if reader in (None, effect.reader):
            numbers.setdefault(effect.key, []).append(effect.number)
    return numbers


class SubscriberConformance(Conformance[Any]):
    """A binding defines `app`. Cases with several members need the feature `shared`."""

    def app(self, place: Path, settings: Settings) -> App:
        """An App named `conformance` at this place: the same place every time."""
        raise NotImplementedError(f"{type(self).__name__}.app(place, settings) must return an App")

    @asynccontextmanager
    async def reader(
        self, stage: Stage[Any], label: str = "reader", *, group: str = "readers", **options: Any
    ) -> AsyncIterator[App]:
        """An App with one handler that writes an effect for each step."""
        async with self.apart(stage) as app:

            @app.on(Step, group=group, **options)
            async def write(event: Step, tx: Transaction) -> None:
                await tx.execute(INSERT, (label, event.key, event.number))

            yield app

    @asynccontextmanager
    async def apart(self, stage: Stage[Any]) -> AsyncIterator[App]:
        """An App without handlers yet; it closes at the end."""
        app = self.app(stage.place, SETTINGS)

        @app.setup
        async def create(tx: Transaction) -> None:
            await tx.execute(CREATE)

        try:
            yield app
        finally:
            await app.close()

    # Who gets what

    @case()
    async def test_a_group_handles_every_message_once(self, stage: Stage[Any]) -> None:
        async with self.reader(stage) as app:
            await app.publish(*steps(10, 5))
            async with running(app):
                await app.publish(*steps(10, 5, first=5))
                found = await until(app, lambda found: len(found) >= 100)
                await asyncio.sleep(0.1)
            assert in_order(await effects(app)) == {f"key{key}": list(range(10)) for key in range(10)}
            assert len(found) == 100

    @case(durable=True)
    async def test_a_group_goes_on_where_it_stopped(self, stage: Stage[Any]) -> None:
        for round_ in range(3):
            async with self.reader(stage) as app:
                await app.publish(*steps(4, 5, first=5 * round_))
                async with running(app):
                    await until(app, lambda found, want=20 * (round_ + 1): len(found) >= want)  # type: ignore[misc]
        async with self.apart(stage) as app:
            assert in_order(await effects(app)) == {f"key{key}": list(range(15)) for key in range(4)}

    @case()
    async def test_every_group_gets_every_message(self, stage: Stage[Any]) -> None:
        async with self.reader(stage, "one", group="one") as app:

            @app.on(Step, group="two")
            async def two(event: Step, tx: Transaction) -> None:
                await tx.execute(INSERT, ("two", event.key, event.number))

            await app.publish(*steps(5, 6))
            async with running(app):
                found = await until(app, lambda found: len(found) >= 60)
            for label in ("one", "two"):
                assert in_order(found, label) == {f"key{key}": list(range(6)) for key in range(5)}

    @case(durable=True)
    async def test_a_later_group_begins_at_the_earliest_message(self, stage: Stage[Any]) -> None:
        async with self.reader(stage, "one", group="one") as app:
            await app.publish(*steps(3, 3))
            async with running(app):
                await until(app, lambda found: len(found) >= 9)

        async with self.reader(stage, "one", group="one") as app:

            @app.on(Step, group="late")
            async def late(event: Step, tx: Transaction) -> None:
                await tx.execute(INSERT, ("late", event.key, event.number))

            async with running(app):
                found = await until(app, lambda found: len([one for one in found if one.reader == "late"]) >= 9)
            assert in_order(found, "late") == {f"key{key}": list(range(3)) for key in range(3)}

    @case()
    async def test_routing_by_type_name_pattern_and_predicate(self, stage: Stage[Any]) -> None:
        seen: dict[str, set[str]] = {}

        def handler(label: str) -> Callable[[Message], Awaitable[None]]:
            async def handle(message: Message) -> None:
                seen.setdefault(label, set()).add(message.type)

            return handle

        async with self.apart(stage) as app:
            app.on(Step, group="type")(handler("type"))
            app.on("conformance.rest", group="name")(handler("name"))
            app.on("conformance.step.*", group="pattern")(handler("pattern"))
            app.on("conformance.*", "elsewhere.*", group="patterns")(handler("patterns"))
            app.on("*", group="all")(handler("all"))
            app.on("*", group="predicate", where=lambda message: message.key == "b")(handler("predicate"))
            await app.publish(Step("a", 1), Jump("b", 2), Rest("c", 3), Elsewhere("d", 4))
            expected = {
                "type": {"conformance.step"},
                "name": {"conformance.rest"},
                "pattern": {"conformance.step.jump"},
                "patterns": {"conformance.step", "conformance.step.jump", "conformance.rest", "elsewhere.step"},
                "all": {"conformance.step", "conformance.step.jump", "conformance.rest", "elsewhere.step"},
                "predicate": {"conformance.step.jump"},
            }

            async def complete() -> bool:
                return {label: len(types) for label, types in seen.items()} == {
                    label: len(types) for label, types in expected.items()
                }

            async with running(app):
                await waiting(complete)
                await asyncio.sleep(0.2)
            assert seen == expected

    # Members

    @case(shared=True)
    async def test_two_members_share_the_work_in_order(self, stage: Stage[Any]) -> None:
        async with self.reader(stage, "one") as one, self.reader(stage, "two") as two, running(one, two):
            await self._spread(one, 2)
            for first in range(0, 20, 2):
                await one.publish(*steps(32, 2, first))
            found = await until(one, lambda found: len(found) >= 640)
            assert in_order(found) == {f"key{key}": list(range(20)) for key in range(32)}
            assert {effect.reader for effect in found} == {"one", "two"}

    async def _spread(self, app: App, members: int) -> None:
        async def fair() -> bool:
            for group in await app.store.groups():
                if group.name == "readers" and len(group.members) == members:
                    counts = sorted(group.members.values())
                    return sum(counts) == len(group.cursors) and counts[-1] - counts[0] <= 1
            return False

        await waiting(fair)

    @case(shared=True)
    async def test_members_come_and_go(self, stage: Stage[Any]) -> None:
        async with (
            self.reader(stage, "one") as one,
            self.reader(stage, "two") as two,
            self.reader(stage, "three") as three,
        ):
            publishing = asyncio.create_task(self._publish_slowly(three))
            async with running(one):
                await until(three, lambda found: len(found) > 20)
                async with running(two):
                    await self._spread(three, 2)
                    async with running(three):
                        await self._spread(three, 3)
                    await self._spread(two, 2)
                total = await publishing
                await until(one, lambda found: len(found) >= total)
                await asyncio.sleep(0.1)
            assert in_order(await effects(one)) == {f"key{key}": list(range(total // 16)) for key in range(16)}

    async def _publish_slowly(self, app: App) -> int:
        """Some messages all the time, for a few seconds; returns how many."""
        for number in range(60):
            await app.publish(*steps(16, 1, number))
            await asyncio.sleep(0.05)
        return 60 * 16

    # Failing

    @case()
    async def test_effects_of_a_failed_attempt_leave_no_trace(self, stage: Stage[Any]) -> None:
        attempts: list[int] = []
        async with self.apart(stage) as app:

            @app.on(Step, group="readers", retry=fixed(0.02, attempts=5))
            async def flaky(event: Step, tx: Transaction, context: Context) -> None:
                await tx.execute(INSERT, ("reader", event.key, event.number))
                tx.publish(Rest(event.key, event.number))
                attempts.append(context.attempt)
                if context.attempt < 3:
                    raise ValueError("not yet")

            @app.on(Rest, group="rests")
            async def rest(event: Rest, tx: Transaction) -> None:
                await tx.execute(INSERT, ("rest", event.key, event.number))

            await app.publish(Step("a", 1))
            async with running(app):
                await until(app, lambda found: len(found) >= 2)
                await asyncio.sleep(0.2)
            assert attempts == [1, 2, 3]
            assert sorted(await effects(app)) == [("reader", "a", 1), ("rest", "a", 1)]

    @case()
    async def test_a_failing_key_holds_up_no_other(self, stage: Stage[Any]) -> None:
        healed = asyncio.Event()
        async with self.apart(stage) as app:

            @app.on(Step, group="readers", retry=fixed(0.1, attempts=1000))
            async def failing(event: Step, tx: Transaction) -> None:
                if event.key == "key3" and not healed.is_set():
                    raise ValueError("not yet")
                await tx.execute(INSERT, ("reader", event.key, event.number))

            await app.publish(*steps(8, 10))
            async with running(app):
                found = await until(app, lambda found: len(found) >= 70)
                assert "key3" not in in_order(found)
                await app.publish(*steps(8, 5, first=10))
                await until(app, lambda found: len(found) >= 105)
                healed.set()
                found = await until(app, lambda found: len(found) >= 120)
            assert in_order(found) == {f"key{key}": list(range(15)) for key in range(8)}
            assert list(await app.store.jobs("readers")) == []

    @case()
    async def test_a_dead_letter_keeps_its_causes(self, stage: Stage[Any]) -> None:
        async with self.apart(stage) as app:

            @app.on(Step, group="readers", retry=fixed(0.02, attempts=3))
            async def failing(event: Step) -> None:
                raise ValueError(f"no {event.number}")

            await app.publish(Step("a", 17))
            async with running(app):
                await waiting(lambda: self._jobs(app, "dead", 1))
            (dead,) = await app.store.jobs("readers", state="dead")
            assert (dead.message.type, dead.message.key, dead.attempts) == ("conformance.step", "a", 3)
            assert [error.attempt for error in dead.errors] == [1, 2, 3]
            for error in dead.errors:
                assert "ValueError: no 17" in error.error
                assert "in failing" in error.trace

    async def _jobs(self, app: App, state: str, count: int) -> bool:
        return len(await app.store.jobs("readers", state=state)) == count

    @case()
    async def test_a_message_that_cannot_be_read_is_dead_lettered(self, stage: Stage[Any]) -> None:
        async with self.reader(stage) as app:
            bad = Message(
                id="bad", source="foreign", type="conformance.step", topic="conformance", time=0, data=b"{", key="a"
            )
            await app.publish(bad, Step("b", 1))
            async with running(app):
                await until(app, lambda found: len(found) >= 1)
                await waiting(lambda: self._jobs(app, "dead", 1))
            (dead,) = await app.store.jobs("readers", state="dead")
            assert (dead.message.id, dead.message.data) == ("bad", b"{")
            assert "DecodeError" in dead.errors[-1].error
            assert in_order(await effects(app)) == {"b": [1]}

    @asynccontextmanager
    async def _parked(self, stage: Stage[Any], healed: asyncio.Event, **options: Any) -> AsyncIterator[App]:
        """Key `a` fails at its number 1 until healed; others go on."""
        async with self.apart(stage) as app:

            @app.on(Step, group="readers", retry=NO_RETRY, **options)
            async def failing(event: Step, tx: Transaction) -> None:
                if (event.key, event.number) == ("a", 1) and not healed.is_set():
                    raise ValueError("not yet")
                await tx.execute(INSERT, ("reader", event.key, event.number))

            await app.publish(*(Step(key, number) for number in range(4) for key in ("a", "b")))
            async with running(app):
                yield app

    @case()
    async def test_later_messages_park_and_resume_in_order(self, stage: Stage[Any]) -> None:
        healed = asyncio.Event()
        async with self._parked(stage, healed) as app:
            await until(app, lambda found: len(found) >= 5)
            await app.publish(Step("a", 4), Step("b", 4))
            await waiting(lambda: self._jobs(app, "parked", 3))
            found = await until(app, lambda found: len(found) >= 6)
            assert in_order(found) == {"a": [0], "b": [0, 1, 2, 3, 4]}
            (dead,) = await app.store.jobs("readers", state="dead")
            healed.set()
            assert await app.store.replay([dead.id]) == 1
            found = await until(app, lambda found: len(found) >= 10)
            assert in_order(found) == {"a": [0, 1, 2, 3, 4], "b": [0, 1, 2, 3, 4]}
            assert list(await app.store.jobs("readers")) == []
            await app.publish(Step("a", 5))
            found = await until(app, lambda found: len(found) >= 11)
            assert in_order(found)["a"] == [0, 1, 2, 3, 4, 5]

    @case()
    async def test_skipping_a_dead_letter_lets_the_rest_go(self, stage: Stage[Any]) -> None:
        async with self._parked(stage, asyncio.Event()) as app:
            await waiting(lambda: self._jobs(app, "parked", 2))
            (dead,) = await app.store.jobs("readers", state="dead")
            assert await app.store.skip([dead.id]) == 1
            found = await until(app, lambda found: len(found) >= 7)
            assert in_order(found) == {"a": [0, 2, 3], "b": [0, 1, 2, 3]}

    @case()
    async def test_on_dead_skip_goes_on_without_it(self, stage: Stage[Any]) -> None:
        async with self._parked(stage, asyncio.Event(), on_dead="skip") as app:
            found = await until(app, lambda found: len(found) >= 7)
            assert in_order(found) == {"a": [0, 2, 3], "b": [0, 1, 2, 3]}
            (dead,) = await app.store.jobs("readers")
            assert (dead.state, dead.message.key) == ("dead", "a")

    # Stopping

    @case()
    async def test_a_stop_during_the_start_is_heard(self, stage: Stage[Any]) -> None:
        async with self.reader(stage) as app:
            run = asyncio.create_task(app.run())
            app.stop()
            await asyncio.wait_for(run, 20)

    # Kinds of handlers

    @case()
    async def test_batches_keep_order_and_happen_once(self, stage: Stage[Any]) -> None:
        sizes: list[int] = []
        failed: list[int] = []
        async with self.apart(stage) as app:

            @app.on(Step, group="readers", batch=10, retry=fixed(0.02))
            async def batch(events: list[Step], tx: Transaction) -> None:
                sizes.append(len(events))
                for event in events:
                    await tx.execute(INSERT, ("reader", event.key, event.number))
                    if (event.key, event.number) == ("key2", 3) and len(failed) < 3:
                        failed.append(len(events))
                        raise ValueError("not yet")

            await app.publish(*steps(6, 8))
            async with running(app):
                found = await until(app, lambda found: len(found) >= 48)
                await asyncio.sleep(0.2)
            assert in_order(await effects(app)) == {f"key{key}": list(range(8)) for key in range(6)}
            assert len(found) == 48
            assert 1 < max(sizes) <= 10
            assert len(failed) == 3
