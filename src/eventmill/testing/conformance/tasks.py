"""Tasks: sent with a transaction, run once, tried again, given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from eventmill.app import App
from eventmill.core.errors import ConfigurationError, EncodeError
from eventmill.core.outcome import DeadLetter, Retry, Snooze
from eventmill.core.retry import NO_RETRY, fixed
from eventmill.patterns.tasks.context import TaskContext
from eventmill.runtime.transaction import SyncTransaction, Transaction
from eventmill.settings import Settings
from eventmill.testing.conformance.apps import (
    CREATE,
    INSERT,
    SETTINGS,
    Effect,
    effects,
    running,
    until,
    waiting,
)
from eventmill.testing.conformance.suite import Conformance, Stage, case, refused


class TasksOnStage(Conformance[Any]):
    """A binding defines `app`, as for the cases of subscribers."""

    effects_table: ClassVar[str] = CREATE

    def app(self, place: Any, settings: Settings) -> App:
        """An App named `conformance` at this place: the same place every time."""
        raise NotImplementedError(f"{type(self).__name__}.app(place, settings) must return an App")

    @asynccontextmanager
    async def opened(self, stage: Stage[Any]) -> AsyncIterator[App]:
        app = self.app(stage.place, SETTINGS)

        @app.setup
        async def create(tx: Transaction) -> None:
            await tx.execute(self.effects_table)

        try:
            yield app
        finally:
            await app.close()


async def dead(app: App) -> list[Any]:
    return list(await app.store.jobs(state="dead"))


async def none_left(app: App) -> bool:
    return not await app.store.jobs()


class TaskCases(TasksOnStage):
    """What a task may count on."""

    @case()
    async def test_a_task_is_sent_with_a_transaction_and_run_once(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as app:

            @app.task()
            async def book(number: int, tx: Transaction, *, key: str = "none") -> None:
                await tx.execute(INSERT, ("book", key, number))

            await app.open()
            await book(1, _Recorder(), key="x")  # type: ignore[arg-type]
            with refused(ZeroDivisionError):
                async with app.transaction() as tx:
                    tx.send(book.job(0))
                    raise ZeroDivisionError
            async with app.transaction() as tx:
                await tx.execute(INSERT, ("sender", "none", 0))
                tx.send(book.job(1))
                await app.send(book.job(number=2, key="named"))
                assert await none_left(app)
            await app.send(book.job(3))
            async with running(app):
                found = await until(app, lambda found: len(found) == 4)
                await waiting(lambda: none_left(app))
            assert sorted(found)[:3] == [("book", "named", 2), ("book", "none", 1), ("book", "none", 3)]

    @case()
    async def test_arguments_are_checked_when_sent(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as app:

            @app.task()
            async def book(number: int, when: datetime, tx: Transaction) -> None: ...

            now = datetime.now(UTC)
            for positional, named, said in (
                ((), {}, "number"),
                (("one", now), {}, "number"),
                ((1, now), {"tx": 1}, "tx"),
                ((1,), {"number": 1}, "number"),
                ((1, now, 3), {}, "2 arguments"),
                ((1, object()), {}, "object"),
            ):
                with refused(EncodeError) as caught:
                    book.job(*positional, **named)
                assert said in str(caught.error)
                assert "book" in str(caught.error)
            for after, at in ((-1.0, None), (None, datetime(2026, 1, 1)), (1.0, now)):
                with refused(ConfigurationError):
                    await app.send(book.job(1, now), after=after, at=at)

    @case()
    async def test_a_failing_task_is_tried_again_and_leaves_no_trace(self, stage: Stage[Any]) -> None:
        seen: list[tuple[int, str, str]] = []
        async with self.opened(stage) as app:

            @app.task(retry=fixed(0.01, attempts=5))
            async def flaky(tx: Transaction, context: TaskContext) -> None:
                await tx.execute(INSERT, ("flaky", "", context.attempt))
                seen.append((context.attempt, context.idempotency_key, context.id))
                if context.attempt < 3:
                    raise ValueError("not yet")

            await app.open()
            sent = await app.send(flaky.job())
            async with running(app):
                found = await until(app, lambda found: len(found) == 1)
                await waiting(lambda: none_left(app))
            assert found == [Effect("flaky", "", 3)]
            assert [attempt for attempt, _, _ in seen] == [1, 2, 3]
            assert {id_ for _, _, id_ in seen} == {sent}
            assert len({key for _, key, _ in seen}) == 1

    @case()
    async def test_outcomes_are_values(self, stage: Stage[Any]) -> None:
        seen: list[tuple[str, int]] = []
        async with self.opened(stage) as app:

            @app.task(retry=fixed(0.01, attempts=3))
            async def ask(kind: str, context: TaskContext) -> Retry | Snooze | DeadLetter | None:
                seen.append((kind, context.attempt))
                if kind == "retry":
                    return Retry(after=0.01)
                if kind == "snooze" and seen.count((kind, 1)) < 5:
                    return Snooze(0.01)
                return DeadLetter("hopeless") if kind == "dead" else None

            await app.open()
            for kind in ("retry", "snooze", "dead"):
                await app.send(ask.job(kind))
            async with running(app):
                await waiting(lambda: count_dead(app, 2))
            assert [attempt for kind, attempt in seen if kind == "retry"] == [1, 2, 3]
            assert [attempt for kind, attempt in seen if kind == "snooze"] == [1] * 5
            assert [attempt for kind, attempt in seen if kind == "dead"] == [1]
            errors = sorted(job.errors[-1].error for job in await dead(app))
            assert errors == ["asked for a retry after 3 of 3 attempts", "hopeless"]

    @case()
    async def test_a_dead_task_waits_for_the_operator(self, stage: Stage[Any]) -> None:
        healed: list[bool] = []
        async with self.opened(stage) as app:

            @app.task(retry=NO_RETRY)
            def book(number: int, tx: SyncTransaction) -> None:
                tx.execute(INSERT, ("book", "", number))
                if not healed:
                    raise ValueError("not healed")

            await app.open()
            await app.send(book.job(1))
            async with running(app):
                await waiting(lambda: count_dead(app, 1))
                (job,) = await dead(app)
                assert "not healed" in job.errors[0].error
                assert "ValueError" in job.errors[0].trace
                healed.append(True)
                await app.store.replay([job.id])
                assert await until(app, lambda found: bool(found)) == [Effect("book", "", 1)]
                await waiting(lambda: none_left(app))

    @case()
    async def test_a_task_waits_for_its_time(self, stage: Stage[Any]) -> None:
        loop = asyncio.get_running_loop()
        seen: list[tuple[str, float]] = []
        async with self.opened(stage) as app:

            @app.task()
            async def note(name: str) -> None:
                seen.append((name, loop.time()))

            await app.open()
            started = loop.time()
            await app.send(note.job("after"), after=0.6)
            await app.send(note.job("at"), at=datetime.now(UTC) + timedelta(seconds=0.3))
            await app.send(note.job("now"))
            async with running(app):
                await waiting(lambda: none_left(app))
            assert [name for name, _ in seen] == ["now", "at", "after"]
            assert seen[1][1] - started >= 0.29
            assert 0.59 <= seen[2][1] - started < 5

    @case()
    async def test_high_priority_goes_first_and_none_starves(self, stage: Stage[Any]) -> None:
        order: list[str] = []
        async with self.opened(stage) as app:
            app.tasks.queue("default", concurrency=1)

            @app.task()
            async def note(name: str) -> None:
                order.append(name)

            await app.open()
            await app.send(note.job("old").having(priority=-2), at=datetime.now(UTC) - timedelta(minutes=6))
            for number in range(3):
                await app.send(note.job(f"plain{number}"))
            await app.send(note.job("high").having(priority=3))
            async with running(app):
                await waiting(lambda: none_left(app))
            assert order == ["old", "high", "plain0", "plain1", "plain2"]

    @case()
    async def test_a_timeout_counts_as_a_failure(self, stage: Stage[Any]) -> None:
        ends: list[str] = []
        async with self.opened(stage) as app:

            @app.task(timeout=0.1, retry=fixed(0.01, attempts=2))
            async def slow(tx: Transaction) -> None:
                try:
                    await tx.execute(INSERT, ("slow", "", 1))
                    await asyncio.sleep(30)
                finally:
                    ends.append("stopped")

            await app.open()
            await app.send(slow.job())
            async with running(app):
                await waiting(lambda: count_dead(app, 1))
            assert ends == ["stopped"] * 2
            assert "TimeoutError" in (await dead(app))[0].errors[-1].error
            assert await effects(app) == []

    @case()
    async def test_a_task_starts_others_with_its_own_commit(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as app:

            @app.task(retry=fixed(0.01))
            async def first(number: int, context: TaskContext, tx: Transaction) -> None:
                tx.send(second.job(number))
                if context.attempt == 1:
                    raise ValueError("not yet")

            @app.task(queue="others")
            async def second(number: int, tx: Transaction) -> None:
                await tx.execute(INSERT, ("second", "", number))

            await app.open()
            for number in range(20):
                await app.send(first.job(number))
            async with running(app):
                await waiting(lambda: none_left(app))
            assert sorted(number for _, _, number in await effects(app)) == list(range(20))

    @case()
    async def test_a_task_may_go_through_a_topic(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as app:
            through_a_topic(app)
            await send_through_a_topic(app)
            async with running(app):
                found = await until(app, lambda found: len(found) == 5)
                await waiting(lambda: count_dead(app, 1))
            assert sorted(number for _, _, number in found) == [1, 2, 3, 4, 104]
            (job,) = await dead(app)
            assert (job.queue, job.message.type) == ("conformance.task.book", "task.book")

            async def other(number: int) -> None: ...

            for wrong in ({"unique": True}, {"keep": 60.0}, {"priority": 1}):
                with refused(ConfigurationError):
                    app.task(topic="work", name="other", **wrong)(other)

    @case(shared=True)
    async def test_many_workers_share_a_queue(self, stage: Stage[Any]) -> None:
        async with self.opened(stage) as one, self.opened(stage) as two:
            for app in (one, two):

                @app.task(retry=NO_RETRY)
                async def book(number: int, tx: Transaction) -> None:
                    await tx.execute(INSERT, ("book", "", number))

            await one.open()
            await two.open()
            async with one.transaction() as tx:
                for number in range(300):
                    tx.send(book.job(number))
            async with running(one, two):
                await waiting(lambda: none_left(one))
            assert sorted(number for _, _, number in await effects(one)) == list(range(300))


def through_a_topic(app: App) -> None:
    """A task that fails at its first attempt, and for good where its number is 9."""

    @app.task(topic="work", retry=fixed(0.05, attempts=2))
    async def book(number: int, tx: Transaction, context: TaskContext) -> None:
        await tx.execute(INSERT, ("book", context.id, number))
        if context.attempt == 1 or number == 9:
            raise ValueError("at the second attempt it works, mostly")


async def send_through_a_topic(app: App) -> None:
    book = app.tasks.by_type["task.book"]
    await app.open()
    await app.send(book.job(1))
    await app.send(book.job(2), after=0.3)
    await app.send(book.job(9))
    with refused(ZeroDivisionError):
        async with app.transaction() as tx:
            tx.send(book.job(0))
            raise ZeroDivisionError
    async with app.transaction() as tx:
        tx.send(book.job(3))
        tx.send(book.job(4).then(book.job(104)))


class _Recorder:
    """Stands for a transaction where the function itself is called."""

    async def execute(self, sql: str, parameters: object = ()) -> None: ...


async def count_dead(app: App, number: int) -> bool:
    jobs = await app.store.jobs()
    return len(jobs) == number and all(job.state == "dead" for job in jobs)
