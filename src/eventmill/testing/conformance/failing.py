"""What becomes of messages whose handler fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from eventmill.app import App
from eventmill.core.message import Message
from eventmill.core.retry import NO_RETRY, fixed
from eventmill.runtime.handler import Context
from eventmill.runtime.transaction import Transaction
from eventmill.testing.conformance.apps import (
    INSERT,
    Rest,
    Step,
    SubscriberCases,
    effects,
    in_order,
    running,
    steps,
    until,
    waiting,
)
from eventmill.testing.conformance.suite import Stage, case


class FailingCases(SubscriberCases):
    """Retries, dead letters, and what waits behind them."""

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
