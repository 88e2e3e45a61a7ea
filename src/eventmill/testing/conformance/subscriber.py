"""What must come true of a subscription, whatever store and broker it runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from eventmill.app import App
from eventmill.core.message import Message
from eventmill.core.retry import fixed
from eventmill.runtime.transaction import Transaction
from eventmill.testing.conformance.apps import (
    INSERT,
    Elsewhere,
    Jump,
    Rest,
    Step,
    effects,
    in_order,
    running,
    steps,
    until,
    waiting,
)
from eventmill.testing.conformance.failing import FailingCases
from eventmill.testing.conformance.suite import Stage, case


class SubscriberConformance(FailingCases):
    """Who gets what, members, stopping, kinds of handlers; and failing."""

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

    @case(durable=True, replay=True)
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
